"""`driftline diff A B`: which rows differ between two versions, and by how much."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Annotated

import numpy as np
import typer
from numpy.typing import NDArray

from driftline.cli.options import AsJson, on_versions
from driftline.cli.version_options import REFERENCE, TableOption, print_json, progress, reading, tables_of
from driftline.config import Settings
from driftline.errors import InputError
from driftline.versions.wording import columns

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

    from driftline.config import Settings
    from driftline.versions import PartDiff, Resolved

DEFAULT_TOP = 10


@dataclass(frozen=True, slots=True)
class TableDiff:
    """How a table differs between two versions."""

    table: str
    changed: NDArray[np.uint64]  # farthest first
    distance: NDArray[np.float32]  # Euclidean, of the rows of `changed`
    added: NDArray[np.uint64]
    removed: NDArray[np.uint64]


@on_versions
def diff(
    settings: Settings,
    before: Annotated[str, typer.Argument(metavar="A", help=f"{REFERENCE}.")],
    after: Annotated[str, typer.Argument(metavar="B", help=f"{REFERENCE}.")] = "latest",
    table: TableOption = None,
    top: Annotated[int, typer.Option(min=0, help="Rows to name, those that moved farthest.")] = DEFAULT_TOP,
    every: Annotated[bool, typer.Option("--rows", help="Name every row that differs.")] = False,
    neighbours: Annotated[
        bool, typer.Option("--neighbours", help="Compare neighbourhoods: how each node's changed.")
    ] = False,
    k: Annotated[
        int | None,
        typer.Option("-k", "--k", min=1, help="Neighbours per node; default: as stored, else 10."),
    ] = None,
    metric: Annotated[
        str | None,
        typer.Option(help="cosine, l2 or inner_product; default: as stored, else cosine."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Compare two versions row by row: changed, added and removed ids, and how far rows moved.

    Rows that both versions share are not read. With --neighbours, node by node: how alike the
    neighbourhoods of each are, the least alike first; a row that did not move itself is marked so.
    """
    if neighbours:
        options = (k, metric, None if every else top)
        _by_neighbours(settings, before, after, table, *options, as_json)
        return
    if k is not None or metric is not None:
        raise InputError("--k and --metric say how neighbours are found: give --neighbours as well")
    from driftline.versions import TableReader, resolve
    from driftline.versions import diff as compare

    repository = reading(settings)
    old, new = resolve(repository, before), resolve(repository, after)
    found = []
    with progress(as_json) as bars:
        for name in common_tables(old, new, table):
            readers = [TableReader(repository.cache, each.manifest, name) for each in (old, new)]
            task = bars.add_task(name, total=readers[0].shards)
            parts = []
            for part in compare(*readers):
                parts.append(part)
                bars.advance(task)
            found.append(together(name, parts))
    limit = None if every else top
    if as_json:
        print_json(
            {
                "before": old.manifest.version,
                "after": new.manifest.version,
                "tables": {each.table: as_dict(each, limit) for each in found},
            }
        )
        return
    typer.echo(f"{old.manifest.version} -> {new.manifest.version}")
    for line in lines(found, limit):
        typer.echo(line)


def _by_neighbours(
    settings: Settings,
    before: str,
    after: str,
    table: str | None,
    k: int | None,
    metric: str | None,
    limit: int | None,
    as_json: bool,
) -> None:
    from driftline.cli import diff_neighbours
    from driftline.graph import Metric
    from driftline.versions import resolve

    if metric is not None and metric not in list(Metric):
        raise InputError(f"--metric {metric}: {', '.join(Metric)}")
    wanted = diff_neighbours.Wanted(k, Metric(metric) if metric is not None else None)
    repository = reading(settings)
    old, new = resolve(repository, before), resolve(repository, after)
    found = []
    with progress(as_json) as bars:
        for name in common_tables(old, new, table):
            task = bars.add_task(name, total=None)
            found.append(
                diff_neighbours.compare_neighbours(
                    repository,
                    old.manifest,
                    new.manifest,
                    name,
                    wanted,
                    partial(_tell, bars, task, name),
                )
            )
    if as_json:
        print_json(
            {
                "before": old.manifest.version,
                "after": new.manifest.version,
                "tables": {each.table: diff_neighbours.as_dict(each, limit) for each in found},
            }
        )
        return
    typer.echo(f"{old.manifest.version} -> {new.manifest.version}")
    for each in found:
        for line in diff_neighbours.lines(each, limit):
            typer.echo(line)


def _tell(bars: Progress, task: TaskID, table: str, doing: str) -> None:
    bars.update(task, description=f"{table}: {doing}")


def common_tables(old: Resolved, new: Resolved, table: str | None) -> list[str]:
    """Return the tables to compare. Raises InputError if the references name different ones."""
    named = {each for each in (old.reference.table, new.reference.table, table) if each is not None}
    if len(named) > 1:
        raise InputError(f"{', '.join(sorted(named))}: compare a table with itself")
    for each in named:
        old.manifest.table(each)
        new.manifest.table(each)
    if named:
        return sorted(named)
    both = [name for name in tables_of(old) if name in new.manifest.tables]
    if not both:
        raise InputError(f"{old.manifest.version} and {new.manifest.version} have no table in common")
    return both


def together(table: str, parts: Sequence[PartDiff]) -> TableDiff:
    """Return the differences of all shards, the rows that moved farthest first."""
    changed = np.concatenate([part.changed for part in parts])
    distance = np.concatenate([part.distance for part in parts])
    order = np.lexsort((changed, -distance))
    added = np.concatenate([part.added for part in parts])
    removed = np.concatenate([part.removed for part in parts])
    return TableDiff(table, changed[order], distance[order], np.sort(added), np.sort(removed))


def as_dict(found: TableDiff, limit: int | None) -> dict[str, object]:
    """Return the differences for JSON; with `limit`, only so many rows of each kind."""
    distance = found.distance.astype(np.float64)
    return {
        "changed": len(found.changed),
        "added": len(found.added),
        "removed": len(found.removed),
        "distance": {
            "mean": float(distance.mean()) if len(distance) else None,
            "median": float(np.median(distance)) if len(distance) else None,
            "max": float(distance.max()) if len(distance) else None,
        },
        "rows": [
            {"id": row, "distance": moved}
            for row, moved in zip(found.changed[:limit].tolist(), distance[:limit].tolist(), strict=True)
        ],
        "added_ids": found.added[:limit].tolist(),
        "removed_ids": found.removed[:limit].tolist(),
    }


def lines(found: Sequence[TableDiff], limit: int | None) -> list[str]:
    """Return the differences in words."""
    cells: list[Sequence[object]] = [("table", "changed", "added", "removed", "mean", "median", "max")]
    for each in found:
        moved = each.distance.astype(np.float64)
        figures = ["-"] * 3
        if len(moved):
            figures = [f"{value:.4g}" for value in (moved.mean(), np.median(moved), moved.max())]
        cells.append((each.table, len(each.changed), len(each.added), len(each.removed), *figures))
    told = columns(cells)
    rows: list[Sequence[object]] = []
    for each in found:
        rows += [
            (each.table, row, "changed", f"{moved:.6g}")
            for row, moved in zip(each.changed[:limit].tolist(), each.distance[:limit].tolist(), strict=True)
        ]
        rows += [(each.table, row, "added", "") for row in each.added[:limit].tolist()]
        rows += [(each.table, row, "removed", "") for row in each.removed[:limit].tolist()]
    return told + (["", *columns([("table", "id", "", "distance"), *rows])] if rows else [])
