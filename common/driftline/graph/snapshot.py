"""A graph at rest: who are the neighbours of whom, to be stored with a version and loaded with it.

Invariant: `child == delta_of(parent, child).onto(parent)`, whatever changed between them, and a
delta names only rows whose set of neighbours changed, with what left and what came. Distances
are not stored: vectors are, and the graph measures anew when it is loaded. A snapshot is a set of
named tensors and string metadata, so the frames' codec and the version store can carry it.

Positions are places in the ascending ids of the snapshot; a list is ascending positions, padded
with NOBODY. Measured per changed row: 4 + 2 + 5 per exchanged neighbour bytes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from driftline.errors import InputError
from driftline.graph.knn import GraphSettings, KnnGraph
from driftline.graph.metric import Floats, Ids, Metric

Positions = NDArray[np.uint32]
Tensors = dict[str, NDArray[np.uint8] | NDArray[np.uint32] | NDArray[np.uint64]]
NOBODY = np.uint32(0xFFFFFFFF)


@dataclass(frozen=True, slots=True, eq=False)
class Snapshot:
    """The whole graph of a version."""

    metric: Metric
    ids: Ids  # (n,) ascending
    neighbours: Positions  # (n, k)

    @property
    def width(self) -> int:
        """K."""
        return int(self.neighbours.shape[1])

    def graph(self, vectors: Floats, settings: GraphSettings) -> KnnGraph:
        """Return a live graph of these rows (n, d), in the order of `ids`.

        Raises InputError if `settings` ask for another K or metric than the snapshot has.
        """
        if settings.neighbours != self.width or settings.metric is not self.metric:
            raise InputError(
                f"the stored graph has K={self.width} under {self.metric.value}, the settings ask for"
                f" K={settings.neighbours} under {settings.metric.value}: use the stored ones, or fit anew"
            )
        return KnnGraph(settings).adopt(self.ids, vectors, self.members())

    def members(self) -> Ids:
        """Return the neighbours as ids (n, k); a row's own id stands where a list ends."""
        listed = self.neighbours != NOBODY
        found = np.broadcast_to(self.ids[:, None], self.neighbours.shape).copy()
        found[listed] = self.ids[self.neighbours[listed]]
        return found

    def encode(self) -> tuple[dict[str, str], Tensors]:
        """Return metadata and tensors."""
        meta = {"graph": "full", "metric": self.metric.value, "k": str(self.width)}
        return meta, {"ids": self.ids, "neighbours": self.neighbours}


@dataclass(frozen=True, slots=True, eq=False)
class SnapshotDelta:
    """What makes a child's graph out of its parent's."""

    metric: Metric
    width: int
    removed: Ids  # (r,) ids of the parent that the child lacks
    added: Ids  # (a,) ids the child has and the parent lacks
    rows: Positions  # (m,) positions in the child of rows whose set of neighbours changed, ascending
    left: NDArray[np.uint8]  # (m,) neighbours that left each
    came: NDArray[np.uint8]  # (m,) neighbours that came
    leavers: NDArray[
        np.uint8
    ]  # (sum left,) their places in the parent's list, after removed rows are struck out
    comers: Positions  # (sum came,) positions in the child

    def onto(self, parent: Snapshot) -> Snapshot:
        """Return the child. Raises InputError if `parent` cannot be the one this was made against."""
        if parent.metric is not self.metric or parent.width != self.width:
            raise InputError(
                f"a delta for K={self.width} under {self.metric.value} cannot go onto a graph with"
                f" K={parent.width} under {parent.metric.value}: store the whole graph when either changes"
            )
        if not np.isin(self.removed, parent.ids).all() or np.isin(self.added, parent.ids).any():
            raise InputError("the delta was made against another graph: load the versions in order")
        ids, lists = _carried(
            parent, np.sort(np.concatenate([np.setdiff1d(parent.ids, self.removed), self.added]))
        )
        row, place = np.repeat(self.rows, self.left), self.leavers
        lists[row, place] = NOBODY
        lists.sort(axis=1)
        kept = np.count_nonzero(lists[self.rows] != NOBODY, axis=1)
        of, rank = _ranks(self.came)
        lists[self.rows[of], kept[of] + rank] = self.comers
        lists.sort(axis=1)
        return Snapshot(self.metric, ids, lists)

    def encode(self) -> tuple[dict[str, str], Tensors]:
        """Return metadata and tensors."""
        meta = {"graph": "delta", "metric": self.metric.value, "k": str(self.width)}
        columns: Tensors = {"removed": self.removed, "added": self.added, "rows": self.rows}
        return meta, columns | {
            "left": self.left,
            "came": self.came,
            "leavers": self.leavers,
            "comers": self.comers,
        }


def snapshot_of(graph: KnnGraph) -> Snapshot:
    """Return the graph at rest."""
    ids = graph.ids
    found = graph.kneighbours()
    lists = np.searchsorted(ids, found.ids).astype(np.uint32)
    lists[~found.listed] = NOBODY
    lists.sort(axis=1)
    return Snapshot(graph.settings.metric, ids, lists)


def delta_of(parent: Snapshot, child: Snapshot) -> SnapshotDelta:
    """Return what makes `child` out of `parent`. Raises InputError if K or metric differ, or K > 255."""
    if parent.metric is not child.metric or parent.width != child.width or child.width > 255:
        raise InputError(
            f"no delta from K={parent.width} under {parent.metric.value} to K={child.width} under"
            f" {child.metric.value}: store the whole graph (always so beyond K=255)"
        )
    _, carried = _carried(parent, child.ids)
    rows = np.flatnonzero((carried != child.neighbours).any(axis=1))
    old, new = carried[rows], child.neighbours[rows]
    leaving = (old != NOBODY) & ~_within(old, new)
    coming = (new != NOBODY) & ~_within(new, old)
    return SnapshotDelta(
        child.metric,
        child.width,
        np.setdiff1d(parent.ids, child.ids),
        np.setdiff1d(child.ids, parent.ids),
        rows.astype(np.uint32),
        leaving.sum(axis=1).astype(np.uint8),
        coming.sum(axis=1).astype(np.uint8),
        np.nonzero(leaving)[1].astype(np.uint8),
        new[coming],
    )


def decode(metadata: Mapping[str, str], tensors: Tensors) -> Snapshot | SnapshotDelta:
    """Return what `encode` was given. Raises InputError for anything else."""
    try:
        metric, width = Metric(metadata["metric"]), int(metadata["k"])
        if metadata["graph"] == "full":
            ids, lists = tensors["ids"].astype(np.uint64), tensors["neighbours"].astype(np.uint32)
            fits = lists.shape == (len(ids), width) and bool(np.all(ids[1:] > ids[:-1]))
            if not fits or np.any((lists != NOBODY) & (lists >= len(ids))):
                raise InputError(f"stored graph: lists of shape {lists.shape} do not fit {len(ids)} ids")
            return Snapshot(metric, ids, lists)
        left, came = tensors["left"].astype(np.uint8), tensors["came"].astype(np.uint8)
        rows = tensors["rows"].astype(np.uint32)
        leavers, comers = tensors["leavers"].astype(np.uint8), tensors["comers"].astype(np.uint32)
        lengths = (
            len(rows) == len(left) == len(came) and left.sum() == len(leavers) and came.sum() == len(comers)
        )
        if not lengths:
            raise InputError("stored graph delta: its columns do not fit each other; load the version again")
        removed, added = tensors["removed"].astype(np.uint64), tensors["added"].astype(np.uint64)
    except (KeyError, ValueError) as error:
        raise InputError(f"stored graph: {error!r}; load the version again") from error
    return SnapshotDelta(metric, width, removed, added, rows, left, came, leavers, comers)


def _carried(parent: Snapshot, ids: Ids) -> tuple[Ids, Positions]:
    """Return the parent's lists as the child's positions, removed rows struck out, new rows empty."""
    at = np.searchsorted(ids, parent.ids)
    lives = ids[np.minimum(at, max(len(ids) - 1, 0))] == parent.ids if len(ids) else np.zeros(len(at), bool)
    place = np.where(lives, at, int(NOBODY)).astype(np.uint32)
    lists = np.full((len(ids), parent.width), NOBODY)
    listed = parent.neighbours != NOBODY
    translated = np.full(parent.neighbours.shape, NOBODY)
    translated[listed] = place[parent.neighbours[listed]]
    translated.sort(axis=1)
    lists[at[lives]] = translated[lives]
    return ids, lists


def _within(these: Positions, those: Positions) -> NDArray[np.bool_]:
    return np.asarray((these[:, :, None] == those[:, None, :]).any(axis=2), np.bool_)


def _ranks(counts: NDArray[np.uint8]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    of = np.repeat(np.arange(len(counts)), counts)
    ends = np.cumsum(counts, dtype=np.int64)
    return of, np.arange(len(of)) - np.repeat(ends - counts, counts)
