"""Two versions compared, node by node and as a whole.

Invariant: pure over (ids, vectors, neighbours) of two versions. Nodes in both are measured, those in
one are counted. Offsets are what is left when the common rotation has been taken out. Two graphs
made independently of UNCHANGED rows differ (mean Jaccard .94 for approximate ones): give the lists
of one graph that followed the change, or exact ones.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from driftline.drift.measures import NODE_MEASURES, Lists, Pair, domain_auc, linear_cka, rotation
from driftline.drift.measures.base import Doubles, Floats, Ids
from driftline.drift.measures.procrustes import angle, residual
from driftline.errors import InputError
from driftline.graph.snapshot import NOBODY, Snapshot

_SAMPLE = 2_000  # rows of the measures over the whole version


@dataclass(frozen=True, slots=True, eq=False)
class Side:
    """One version: its rows, ids ascending, and their neighbours, nearest first."""

    ids: Ids  # (n,)
    vectors: Floats  # (n, d)
    lists: Lists  # (n, k)

    @classmethod
    def of(cls, snapshot: Snapshot, vectors: Floats) -> Side:
        """Return the version with this stored graph; its lists are put in order of Euclidean distance."""
        if len(vectors) != len(snapshot.ids):
            raise InputError(
                f"{len(vectors)} vectors for a graph of {len(snapshot.ids)} rows: one per row, by id"
            )
        places = snapshot.neighbours
        listed = places != NOBODY
        others = np.where(listed, places, 0)
        gaps = np.empty(places.shape)
        for column in range(places.shape[1]):
            gaps[:, column] = np.linalg.norm(vectors[others[:, column]] - vectors, axis=1)
        gaps[~listed] = np.inf
        order = np.argsort(gaps, axis=1, kind="stable")
        ids = np.take_along_axis(np.where(listed, snapshot.ids[others], np.uint64(0)), order, axis=1)
        return cls(snapshot.ids, vectors, Lists(ids, np.take_along_axis(listed, order, axis=1)))


@dataclass(frozen=True, slots=True)
class Whole:
    """What holds of two versions as a whole."""

    nodes: int  # in both
    added: int
    removed: int
    moved: int  # of those in both
    rotation_angle: float  # radians, root mean square
    procrustes_residual: float
    linear_cka: float
    domain_auc: float


@dataclass(frozen=True, slots=True, eq=False)
class Comparison:
    """Measures of every node that is in both versions."""

    ids: Ids  # (n,) ascending
    moved: np.ndarray[
        tuple[int], np.dtype[np.bool_]
    ]  # (n,) its own vector changed; the others are shown, not judged
    measures: dict[str, Doubles]  # (n,) each, by name, as in NODE_MEASURES
    whole: Whole

    def totals(self) -> dict[str, dict[str, float]]:
        """Return sum, mean and quantiles of each measure over the moved nodes; NaN and infinity left out."""
        found = {}
        for name, values in self.measures.items():
            finite = values[self.moved & np.isfinite(values)]
            if len(finite):
                middle, high = np.quantile(finite, [0.5, 0.99])
                found[name] = {
                    "sum": float(finite.sum()),
                    "mean": float(finite.mean()),
                    "median": float(middle),
                    "p99": float(high),
                }
        return found


def measured(pair: Pair) -> dict[str, Doubles]:
    """Return every node measure of `pair` by name."""
    return {measure.name: measure.of(pair) for measure in NODE_MEASURES}


def compare(old: Side, new: Side, seed: int = 0) -> Comparison:
    """Compare two versions. Raises InputError if their dimensions differ."""
    if old.vectors.shape[1] != new.vectors.shape[1]:
        raise InputError(
            f"versions of {old.vectors.shape[1]} and {new.vectors.shape[1]} dimensions have no offsets:"
            " map one into the space of the other first"
        )
    ids, at_old, at_new = np.intersect1d(old.ids, new.ids, assume_unique=True, return_indices=True)
    before, after = old.vectors[at_old], new.vectors[at_new]
    moved = (before != after).any(axis=1)
    turn = rotation(before, after) if moved.any() else np.eye(before.shape[1])
    straight = (after.astype(np.float64) @ turn.T).astype(np.float32) if moved.any() else after
    straight[~moved] = before[~moved]
    lists = Lists(old.lists.ids[at_old], old.lists.listed[at_old])
    kth = _kth(old, lists, before)
    pair = Pair(before, straight, lists, Lists(new.lists.ids[at_new], new.lists.listed[at_new]), kth)
    chosen = np.random.default_rng(seed).permutation(len(ids))[:_SAMPLE]
    whole = Whole(
        len(ids),
        len(new.ids) - len(ids),
        len(old.ids) - len(ids),
        int(moved.sum()),
        angle(turn) if moved.any() else 0.0,
        residual(before[chosen], after[chosen]) if len(chosen) else 0.0,
        linear_cka(before[chosen], after[chosen]) if len(chosen) else 1.0,
        domain_auc(before[chosen], after[chosen], seed),
    )
    return Comparison(ids, moved, measured(pair), whole)


def _kth(side: Side, lists: Lists, vectors: Floats) -> Floats:
    """Return the largest distance (n,) from each node to one of its neighbours; infinite without any."""
    at = np.minimum(np.searchsorted(side.ids, lists.ids), max(len(side.ids) - 1, 0))
    known = lists.listed & (side.ids[at] == lists.ids)
    far = np.zeros(len(vectors))
    for column in range(lists.ids.shape[1]):
        gap = np.linalg.norm(side.vectors[at[:, column]] - vectors, axis=1)
        far = np.maximum(far, np.where(known[:, column], gap, 0))
    far[~known.any(axis=1)] = np.inf
    return far.astype(np.float32)
