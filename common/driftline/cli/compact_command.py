"""`driftline compact`: the same versions in less room."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated

import typer

from driftline.cli.gc_command import reachable
from driftline.cli.options import AsJson, for_settings
from driftline.cli.version_options import REFERENCE, print_json, progress, reading
from driftline.config import Settings
from driftline.errors import InputError
from driftline.versions.wording import seconds_in, size

if TYPE_CHECKING:
    from driftline.versions import Repository
    from driftline.versions.compacting import Compacted


@for_settings("store_url", "log_url", "group", "data_dir", "config")
def compact(
    settings: Settings,
    refs: Annotated[
        list[str] | None, typer.Argument(metavar="[REF]...", help=f"With --tier: {REFERENCE}.")
    ] = None,
    tier: Annotated[
        str | None,
        typer.Option("--tier", help="Store versions in this tier from now on: int16 or int8. It loses bits."),
    ] = None,
    older_than: Annotated[
        str | None,
        typer.Option("--older-than", metavar="SPAN", help="With --tier: all of this age that nothing holds."),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what would be done, and do nothing.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Rewrite segments that are mostly unused, or too many; versions keep their names and their rows.

    With --tier, versions become smaller and lose bits: they can be read and compared, but not restored.
    Heads and begins of branches, tagged, pinned and deployed versions, and those that the log goes back
    to, stay exact. What is replaced is freed by `driftline gc`.
    """
    from driftline.versions.compacting import compact as do
    from driftline.versions.compacting import plan_compaction

    if tier is None and (refs or older_than):
        raise InputError("versions are named to choose their tier: add --tier int16 or --tier int8")
    if tier is not None and not refs and older_than is None:
        raise InputError(f"--tier {tier} of which versions? Name them, or give their age: --older-than 30d")
    repository = reading(settings)

    def protected() -> frozenset[str]:
        return asyncio.run(reachable(settings)) if tier is not None else frozenset()

    tiers = dict.fromkeys(chosen(repository, refs or [], older_than, tier, protected()), tier or "")
    with progress(as_json) as bars:
        task = bars.add_task("shards", total=None)

        def on_progress(done: int, total: int) -> None:
            bars.update(task, completed=done, total=total)

        make = plan_compaction if dry_run else do
        found = make(repository, tiers, protected, on_progress=on_progress)
    if as_json:
        print_json(as_dict(found, dry_run))
        return
    for line in lines(found, dry_run, repository.grace):
        typer.echo(line)


def chosen(
    repository: Repository, refs: list[str], older_than: str | None, tier: str | None, held: frozenset[str]
) -> list[str]:
    """Return the versions that are named, or old enough, free and more exact than `tier`."""
    from driftline.versions import read_all, removable, resolve
    from driftline.versions.tiers import level

    if tier is None:
        return []
    level(tier)
    named = [resolve(repository, ref).manifest.version for ref in refs]
    if older_than is None:
        return named
    before = repository.now() - seconds_in(older_than)
    manifests = read_all(repository)
    stay = [each.version for each in manifests if each.created > before]
    stay += [each.version for each in manifests if level(each.retention) <= level(tier)]
    return sorted({*named, *removable(repository, stay, held)})


def as_dict(found: Compacted, dry_run: bool) -> dict[str, object]:
    """Return what was done, or would be, for JSON."""
    return {
        "dry_run": dry_run,
        "versions": list(found.versions),
        "segments": found.segments,
        "segment_bytes": found.bytes,
        "rows": found.rows,
        "written_bytes": found.written,
        "tiers": dict(found.tiers),
        "errors": dict(found.errors),
        "held": dict(found.held),
    }


def lines(found: Compacted, dry_run: bool, grace: float) -> Iterator[str]:
    """Yield what was done, or would be, in words."""
    would = "would be " if dry_run else ""
    for version, tier in found.tiers.items():
        off = f", up to {found.errors[version]:.3g} off" if version in found.errors else ""
        yield f"{version} {would}stored in tier {tier}{off}"
    for version, holder in found.held.items():
        yield f"{version} stays exact: it is held by {holder} since just now"
    if not found.versions:
        yield "nothing to do"
        return
    told = f"{found.segments} segments, {size(found.bytes)} {would}rewritten"
    written = f" into {size(found.written)}" if not dry_run else ""
    yield f"{told}{written}: {found.rows:,} rows, for {len(found.versions)} versions"
    if not dry_run and found.bytes:
        yield f"two runs of `driftline gc`, {grace / 3600:g} h apart, free what was replaced"
