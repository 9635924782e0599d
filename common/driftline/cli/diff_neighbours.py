"""What `driftline diff --neighbours` does: two versions compared node by node [EM7].

Invariant: nodes are ranked by what happened to their neighbourhood, and a row that did not move itself
is shown as such. Stored graphs are used where both versions have one of the K and metric asked for;
else the graph of A is made (exactly up to 20,000 rows) and led to B by what differs, never made twice:
two graphs made apart from each other differ where nothing moved.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from driftline.drift.compare import Comparison, Side, compare
from driftline.errors import InputError
from driftline.graph import GraphSettings, KnnGraph, Metric, Snapshot, snapshot_of, unusable
from driftline.versions import Manifest, TableReader, load_graph
from driftline.versions.wording import columns

if TYPE_CHECKING:
    from driftline.versions import Repository

Told = Callable[[str], None]
_SHOWN = ("jaccard", "change_quantity", "change_ratio", "rank_biased_overlap", "offset_distance")


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which graph to compare by; None: that of the stored graphs, else 10 and cosine."""

    neighbours: int | None
    metric: Metric | None


@dataclass(frozen=True, slots=True)
class TableChange:
    """How the neighbourhoods of a table differ between two versions."""

    table: str
    neighbours: int
    metric: Metric
    graphs: str  # "stored" or "made"
    left_out: int  # rows without a place in a graph, of both versions
    found: Comparison


def compare_neighbours(
    repository: Repository, old: Manifest, new: Manifest, table: str, wanted: Wanted, told: Told
) -> TableChange:
    """Return the measures of every node of `table` that is in both versions."""
    told("reading")
    sides = [_rows(TableReader(repository.cache, each, table)) for each in (old, new)]
    stored = [load_graph(repository, each.version, table) for each in (old, new)]
    usable = _same(stored, wanted, sides)
    if usable is not None:
        metric, width, graphs = usable[0].metric, usable[0].width, "stored"
        first, second = (
            Side.of(graph, vectors[np.searchsorted(ids, graph.ids)])
            for graph, (ids, vectors) in zip(usable, sides, strict=True)
        )
        left_out = sum(len(ids) - len(graph.ids) for graph, (ids, _) in zip(usable, sides, strict=True))
    else:
        known = next((each for each in stored if each is not None), None)
        metric = wanted.metric or (known.metric if known is not None else Metric.COSINE)
        width, graphs = wanted.neighbours or (known.width if known is not None else 10), "made"
        kept = [(ids[fit], vectors[fit]) for ids, vectors in sides for fit in [~unusable(vectors, metric)]]
        left_out = sum(len(ids) for ids, _ in sides) - sum(len(ids) for ids, _ in kept)
        told("making the graph")
        first, second = _made(kept, GraphSettings(neighbours=width, metric=metric), told)
    told("comparing")
    return TableChange(table, width, metric, graphs, left_out, compare(first, second))


def ranking(found: Comparison) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    """Return the places of nodes: the least alike neighbourhoods first, then those that moved farthest."""
    jaccard, offset = found.measures["jaccard"], found.measures["offset_distance"]
    return np.lexsort((found.ids, -offset, jaccard))


def as_dict(change: TableChange, limit: int | None) -> dict[str, object]:
    """Return a comparison for JSON; with `limit`, only so many nodes."""
    found, whole = change.found, change.found.whole
    order = ranking(found)[:limit]
    return {
        "k": change.neighbours,
        "metric": change.metric.value,
        "graphs": change.graphs,
        "left_out": change.left_out,
        "nodes": whole.nodes,
        "moved": whole.moved,
        "added": whole.added,
        "removed": whole.removed,
        "rotation_angle": _number(whole.rotation_angle),
        "procrustes_residual": _number(whole.procrustes_residual),
        "linear_cka": _number(whole.linear_cka),
        "domain_auc": _number(whole.domain_auc),
        "totals": found.totals(),
        "ranked": [
            {"id": int(found.ids[at]), "moved": bool(found.moved[at])}
            | {name: _number(values[at]) for name, values in found.measures.items()}
            for at in order
        ],
    }


def lines(change: TableChange, limit: int | None) -> list[str]:
    """Return a comparison in words."""
    found, whole = change.found, change.found.whole
    told = [
        f"{change.table}: {whole.nodes} nodes in both, {whole.moved} moved, {whole.added} added,"
        f" {whole.removed} removed; {change.neighbours} neighbours by {change.metric.value},"
        f" graphs {change.graphs}",
        f"as a whole: rotation {whole.rotation_angle:.4g},"
        f" Procrustes residual {whole.procrustes_residual:.4g}, linear CKA {whole.linear_cka:.4g},"
        f" domain AUC {whole.domain_auc:.4g}",
    ]
    if change.left_out:
        told.append(f"{change.left_out} rows of zeros, NaN or infinity have no neighbours and are left out")
    cells: list[Sequence[object]] = [("measure, of moved nodes", "sum", "mean", "median", "p99")]
    cells += [
        (name, *(f"{value:.4g}" for value in totals.values())) for name, totals in found.totals().items()
    ]
    told += ["", *columns(cells)] if len(cells) > 1 else []
    order = ranking(found)[:limit]
    nodes: list[Sequence[object]] = [("id", "moved", *_SHOWN)]
    for at in order:
        figures = (f"{found.measures[name][at]:.4g}" for name in _SHOWN)
        nodes.append((int(found.ids[at]), "yes" if found.moved[at] else "no", *figures))
    return told + (["", *columns(nodes)] if len(nodes) > 1 else [])


def _rows(reader: TableReader) -> tuple[np.ndarray, np.ndarray]:
    blocks = [block for shard in range(reader.shards) for block in reader.blocks(shard)]
    ids = np.concatenate([np.empty(0, np.uint64), *(block.ids for block in blocks)])
    rows = np.concatenate([np.empty((0, reader.table.dim), np.float32), *(block.rows for block in blocks)])
    order = np.argsort(ids)
    return ids[order], rows[order]


def _same(
    stored: Sequence[Snapshot | None], wanted: Wanted, sides: Sequence[tuple[np.ndarray, np.ndarray]]
) -> list[Snapshot] | None:
    """Return the stored graphs if they can be compared as asked."""
    found = [each for each in stored if each is not None]
    if len(found) < len(stored):
        return None
    kinds = {(each.width, each.metric) for each in found}
    width, metric = found[0].width, found[0].metric
    fits = len(kinds) == 1 and (wanted.neighbours or width, wanted.metric or metric) == (width, metric)
    known = all(np.isin(each.ids, ids).all() for each, (ids, _) in zip(found, sides, strict=True))
    return found if fits and known else None


def _made(
    sides: Sequence[tuple[np.ndarray, np.ndarray]], settings: GraphSettings, told: Told
) -> tuple[Side, Side]:
    (ids, vectors), (new_ids, new_vectors) = sides
    if vectors.shape[1] != new_vectors.shape[1]:
        raise InputError(
            f"versions of {vectors.shape[1]} and {new_vectors.shape[1]} dimensions have no offsets:"
            " map one into the space of the other first"
        )
    graph = KnnGraph(settings).fit(ids, vectors)
    before = Side.of(snapshot_of(graph), vectors)
    told("following the change")
    at = np.searchsorted(ids, new_ids)
    known = at < len(ids)
    known[known] = ids[at[known]] == new_ids[known]
    changed = ~known
    changed[known] = (vectors[at[known]] != new_vectors[known]).any(axis=1)
    graph.update(new_ids[changed], new_vectors[changed], removed=np.setdiff1d(ids, new_ids))
    graph.close()
    return before, Side.of(snapshot_of(graph), new_vectors)


def _number(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None
