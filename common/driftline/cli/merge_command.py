"""`driftline merge`: what two branches have learned, in one version."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from driftline.cli.options import AsJson, on_versions
from driftline.cli.version_options import REFERENCE, print_json, progress, reading
from driftline.config import Settings
from driftline.errors import InputError
from driftline.versions.merging import Resolver
from driftline.versions.wording import columns

if TYPE_CHECKING:
    from driftline.versions.joining import Merge, TableMerge

DEFAULT_TOP = 10


@on_versions
def merge(
    settings: Settings,
    ref: Annotated[str, typer.Argument(metavar="REF", help=f"What is merged in: {REFERENCE}.")],
    into: Annotated[str, typer.Option("--into", metavar="BRANCH", help="Branch that gets it.")] = "main",
    resolve_by: Annotated[
        Resolver,
        typer.Option(
            "--resolve",
            help="A row that both changed: the latest, the mean weighted by updates, or both changes added.",
        ),
    ] = Resolver.LATEST,
    scale: Annotated[float, typer.Option(help="Of the sum of both changes, with --resolve task.")] = 1.0,
    scenario: Annotated[
        str | None, typer.Option("--scenario", help="Of the new version, if another: a new major.")
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="List what would change and the conflicts, and do nothing.")
    ] = False,
    every: Annotated[bool, typer.Option("--rows", help="Name every conflict.")] = False,
    as_json: AsJson = False,
) -> None:
    """Merge a version into a branch, row by row since their common ancestor: a version with two parents.

    The live tables stay as they are; `driftline checkout BRANCH` takes them to the merge.
    """
    from driftline.versions import resolve
    from driftline.versions.joining import merge as do
    from driftline.versions.joining import plan_merge

    repository = reading(settings)
    found = resolve(repository, ref)
    if found.reference.table is not None:
        raise InputError(f"{ref}: the tables of a group are merged together: name no table")
    with progress(as_json) as bars:
        task = bars.add_task(f"merging {found.manifest.version}", total=None)

        def on_progress(done: int, total: int) -> None:
            bars.update(task, completed=done, total=total)

        theirs = found.manifest.version
        if dry_run:
            merged = plan_merge(repository, theirs, into, on_progress)
        else:
            merged = do(
                repository,
                theirs,
                into,
                resolver=resolve_by,
                scale=scale,
                scenario=scenario,
                on_progress=on_progress,
            )
    limit = None if every else DEFAULT_TOP
    if as_json:
        print_json(as_dict(merged, limit, dry_run))
        return
    for line in lines(merged, limit, into):
        typer.echo(line)


def as_dict(merged: Merge, limit: int | None, dry_run: bool) -> dict[str, object]:
    """Return a merge for JSON; with `limit`, only so many conflicts of each kind and table."""
    return {
        "dry_run": dry_run,
        "ours": merged.ours,
        "theirs": merged.theirs,
        "ancestor": merged.ancestor,
        "version": merged.manifest.version if merged.manifest is not None else None,
        "tables": {
            each.table: {
                "taken": len(each.taken),
                "removed": len(each.removed),
                "conflicts": each.conflicts,
                "conflicting": {
                    "changed": each.changed[:limit].tolist(),
                    "removed_in_theirs": each.kept[:limit].tolist(),
                    "removed_in_ours": each.revived[:limit].tolist(),
                },
            }
            for each in merged.tables
        },
    }


def lines(merged: Merge, limit: int | None, branch: str) -> list[str]:
    """Return a merge in words."""
    if merged.ancestor == merged.theirs:
        return [f"{merged.ours} has all of {merged.theirs}: nothing to merge"]
    cells: list[Sequence[object]] = [("table", "taken", "removed", "conflicts")]
    cells += [(each.table, len(each.taken), len(each.removed), each.conflicts) for each in merged.tables]
    told = [f"{merged.theirs} into {merged.ours}, since {merged.ancestor}", *columns(cells)]
    named = [row for each in merged.tables for row in conflicts(each, limit)]
    if named:
        told += ["", *columns([("table", "id", "conflict"), *named])]
        left = sum(each.conflicts for each in merged.tables) - len(named)
        told += [f"and {left:,} more: --rows names them all"] if left else []
    if merged.manifest is not None:
        told.append(f"{merged.manifest.version} on {branch}; `driftline checkout {branch}` goes on from it")
    return told


def conflicts(table: TableMerge, limit: int | None) -> list[tuple[str, int, str]]:
    """Return the conflicts of a table, at most `limit` of each kind."""
    kinds = (
        (table.changed, "changed in both"),
        (table.kept, "removed in theirs, kept"),
        (table.revived, "removed in ours, taken"),
    )
    return [(table.table, row, kind) for ids, kind in kinds for row in ids[:limit].tolist()]
