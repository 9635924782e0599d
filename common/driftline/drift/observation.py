"""What the judge sees of one tick.

Invariant: only rows moved by gradients are in the columns; rows that were put, restored, deleted or
that merely lost a neighbour are no evidence of bad training. `NaN` in a measure means that it could
not be taken of that node.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from driftline.drift.compare import measured
from driftline.drift.measures import Lists, Pair, rotation
from driftline.drift.measures.base import Doubles, Floats, Ids
from driftline.drift.measures.offset_direction import directions
from driftline.graph.metric import Metric
from driftline.graph.results import MOVED, GraphTick


@dataclass(frozen=True, slots=True, eq=False)
class Observation:
    """One tick of one table."""

    tick: int  # counts up by one; a gap is a tick without data
    ids: Ids  # (n,)
    measures: dict[str, Doubles]  # (n,) each
    updates: NDArray[np.int64]  # (n,) gradient updates each row had had before this tick
    norms: Doubles  # (n,) |new|
    coherence: float  # mean cosine between the offsets of two nodes
    turned: float  # share of the movement that one rotation of the table explains
    broken: Ids = field(default_factory=lambda: np.empty(0, np.uint64))  # ids that came with NaN or infinity
    complete: bool = True  # all partitions are in
    degraded: bool = False  # the graph's recall is below its floor
    learning_rate: float | None = None  # as the trainer states it; None: constant


def observe(
    tick: GraphTick,
    metric: Metric,
    old: Floats,
    new: Floats,
    updates: NDArray[np.int64],
    *,
    broken: Ids | None = None,
    complete: bool = True,
    learning_rate: float | None = None,
) -> Observation:
    """Return the observation of a graph's tick.

    `old` and `new` (t, d) are the rows of `tick.ids` before and after, `updates` (t,) what each had had.
    """
    judged = tick.cause == MOVED
    before, after = old[judged], new[judged]
    coherence, turned, straight = _common(before, after)
    kth = np.where(tick.before.listed[judged], tick.before.distances[judged], 0).max(axis=1, initial=0.0)
    kth = np.asarray(np.where(tick.before.listed[judged].any(axis=1), kth, np.inf), np.float32)
    if metric is Metric.COSINE:
        # The radius as a length: of the chord between unit vectors, times the row's own length.
        kth = np.sqrt(2 * kth) * np.linalg.norm(before, axis=1)
    elif metric is Metric.INNER_PRODUCT:
        # A product is no length: offsets are read against the row itself.
        kth = np.linalg.norm(before, axis=1)
    pair = Pair(
        before,
        straight,
        Lists(tick.before.ids[judged], tick.before.listed[judged]),
        Lists(tick.after.ids[judged], tick.after.listed[judged]),
        np.asarray(kth, np.float32),
    )
    return Observation(
        tick.number,
        tick.ids[judged],
        measured(pair),
        updates[judged],
        np.linalg.norm(after.astype(np.float64), axis=1),
        coherence,
        turned,
        np.empty(0, np.uint64) if broken is None else broken,
        complete,
        tick.degraded,
        learning_rate,
    )


def _common(old: Floats, new: Floats) -> tuple[float, float, Floats]:
    """Return coherence, the share of movement that a rotation explains, and `new` with it taken out.

    A rotation fitted to few rows explains any movement: it is taken out only where it explains more
    than its d(d−1)/2 parameters would by chance from n·d numbers, by half of what is left.
    """
    count, dims = old.shape
    ways = directions(Pair(old, new, _NOBODY, _NOBODY, np.empty(0, np.float32)))
    total = ways.sum(axis=0)
    coherence = float((total @ total - (ways**2).sum()) / (count * (count - 1))) if count > 1 else 0.0
    if count < dims:
        return coherence, 0.0, new
    moved = float(((new.astype(np.float64) - old) ** 2).sum())
    if moved == 0:
        return coherence, 0.0, new
    turn = rotation(old, new)
    rest = float(((new - old @ turn) ** 2).sum())
    explained = 1 - rest / moved
    chance = min(1.0, (dims - 1) / (2 * count))
    share = max(0.0, (explained - chance) / (1 - chance)) if chance < 1 else 0.0
    if share < 0.5:
        return coherence, share, new
    return coherence, share, np.asarray(new @ turn.T, np.float32)


_NOBODY = Lists(np.empty((0, 0), np.uint64), np.empty((0, 0), np.bool_))
