"""`driftline gc`: remove old versions, and what no version needs."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from driftline.cli.options import AsJson, for_settings
from driftline.cli.version_options import print_json, progress, reading
from driftline.config import Settings, kafka_security
from driftline.errors import StateError
from driftline.versions.wording import moment, seconds_in, size

if TYPE_CHECKING:
    from driftline.versions import Plan, Repository


@for_settings("store_url", "log_url", "group", "data_dir", "config")
def gc(
    settings: Settings,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what would be done, and do nothing.")
    ] = False,
    older_than: Annotated[
        str | None,
        typer.Option(
            "--older-than",
            metavar="SPAN",
            help="First remove versions of this age that nothing holds: 7d, 4w.",
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Delete objects that no version needs; with --older-than, remove old versions first.

    Never removed: heads and begins of branches, tagged and pinned versions, and those that the log goes
    back to. What is unreferenced goes when two runs, 24 h apart, both found it so.
    """
    from driftline.versions import collect, plan_collection, retire

    repository = reading(settings)
    leaving = old_versions(repository, settings, seconds_in(older_than), as_json) if older_than else []
    if leaving and not dry_run:
        retire(repository, leaving)
    with progress(as_json) as bars:
        bars.add_task("objects", total=None)
        plan = (plan_collection if dry_run else collect)(repository)
    if as_json:
        print_json(as_dict(plan, leaving, dry_run))
    else:
        for line in lines(plan, leaving, dry_run, repository.grace):
            typer.echo(line)
    if plan.damaged:
        raise StateError(
            f"nothing is deleted while {', '.join(plan.damaged)} cannot be read: `driftline fsck` says more"
        )


def old_versions(repository: Repository, settings: Settings, age: float, quiet: bool) -> Sequence[str]:
    """Return the versions of that age that nothing holds and the log does not go back to."""
    from driftline.log import check_exists, open_log
    from driftline.ops.restores import restored_versions
    from driftline.versions import read_all, removable

    async def reachable() -> frozenset[str]:
        async with open_log(settings.log_url, kafka_security(settings)) as log:
            return await restored_versions(log, settings.group)

    check_exists(settings.log_url)
    protected = asyncio.run(reachable())
    with progress(quiet) as bars:
        task = bars.add_task("manifests", total=None)
        manifests = read_all(repository, lambda done, total: bars.update(task, completed=done, total=total))
    before = repository.now() - age
    young = [each.version for each in manifests if each.created > before]
    return removable(repository, young, protected)


def as_dict(plan: Plan, leaving: Sequence[str], dry_run: bool) -> dict[str, object]:
    """Return what was done, or would be, for JSON."""
    return {
        "dry_run": dry_run,
        "removed_versions": list(leaving),
        "deleted": list(plan.delete),
        "deleted_bytes": plan.delete_bytes,
        "unreferenced": len(plan.marked),
        "unreferenced_bytes": sum(plan.marked.values()),
        "damaged": list(plan.damaged),
    }


def lines(plan: Plan, leaving: Sequence[str], dry_run: bool, grace: float) -> Iterator[str]:
    """Yield what was done, or would be, in words."""
    would = "would be " if dry_run else ""
    for version in leaving:
        yield f"{version} {would}removed"
    yield f"{len(plan.delete)} objects, {size(plan.delete_bytes)} {would}deleted"
    waiting = {key: count for key, count in plan.marked.items() if key not in set(plan.delete)}
    if waiting:
        told = f"{len(waiting)} objects, {size(sum(waiting.values()))} are unreferenced"
        yield f"{told}: a run {grace / 3600:g} h after this one deletes them"
    if plan.first_mark is not None:
        yield f"found unreferenced before, at {moment(plan.first_mark)}"
