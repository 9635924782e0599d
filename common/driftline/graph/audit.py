"""Is the graph right? Recall of sampled rows against every row, pooled over some ticks.

Invariant: a row's recall is exact (in the distances of `metric.pairs`, ties counted for the
graph), and the interval covers the recall of the group with at least its confidence: a row's
recall lies in [0, 1], so its variance is at most that of a coin with the same mean, for which
the interval is made. Source: Wilson, "Probable inference, the law of succession, and
statistical inference", JASA 1927.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from math import sqrt
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

from driftline.graph.lists import Lists, Places
from driftline.graph.packing import EMPTY, slots_of


@dataclass(frozen=True, slots=True)
class Recall:
    """Mean recall of a group of rows, with an interval that holds it with `confidence`."""

    rows: int
    mean: float  # NaN without rows
    low: float
    high: float
    confidence: float = 0.95


@dataclass(frozen=True, slots=True)
class Audit:
    """Recall over the last ticks."""

    random: Recall  # of rows drawn from all
    changed: Recall  # of rows changed in the tick of their audit
    affected: Recall  # of rows whose list a tick altered though they did not change


@dataclass(frozen=True, slots=True)
class AuditSettings:
    """How much is audited, and what follows."""

    rows: int = 20  # of each group per tick; what is pooled is `rows` × `window`
    window: int = 10  # ticks
    repair_below: float = 0.97
    degraded_below: float = 0.95
    confidence: float = 0.95


def interval(values: Sequence[float], confidence: float) -> Recall:
    """Return the mean of `values` in [0, 1] with its Wilson interval, of one value per row."""
    count = len(values)
    if not count:
        return Recall(0, float("nan"), 0.0, 1.0, confidence)
    z = NormalDist().inv_cdf(0.5 + confidence / 2)
    mean = min(1.0, sum(values) / count)
    centre = (mean + z * z / (2 * count)) / (1 + z * z / count)
    half = z * sqrt(max(0.0, mean * (1 - mean)) / count + z * z / (4 * count * count)) / (1 + z * z / count)
    return Recall(count, mean, max(0.0, centre - half), min(1.0, centre + half), confidence)


def recall_of(lists: Lists, rows: Places, neighbours: int) -> NDArray[np.float64]:
    """Return the recall (n,) of the first `neighbours` of each of `rows`; 1 where there is nobody to list."""
    found = np.empty(len(rows))
    done = 0
    for part in lists.blocks(rows):
        found[done : done + len(part)] = _part(lists, part, neighbours)
        done += len(part)
    return found


def _part(lists: Lists, rows: Places, neighbours: int) -> NDArray[np.float64]:
    wanted = min(neighbours, len(lists) - 1)
    if wanted <= 0:
        return np.ones(len(rows))
    keys = lists.keys[rows, :neighbours]
    listed = slots_of(keys)
    # The distances in the lists may be old ones, under the M-order rule alone: measure again.
    line, place = np.nonzero(keys != EMPTY)
    current = np.full(keys.shape, np.inf, np.float32)
    current[line, place] = lists.distances(rows[line], listed[line, place].astype(np.int64))
    current[:, wanted:] = np.inf
    kth = np.where(np.isfinite(current).sum(axis=1) >= wanted, current[:, :wanted].max(axis=1), np.inf)
    near = lists.block(rows)
    with np.errstate(invalid="ignore"):
        line, other = np.nonzero((near < (kth + lists.tolerance(rows))[:, None]) & np.isfinite(near))
    known = np.zeros(len(line), bool)
    for column in range(listed.shape[1]):
        known |= listed[line, column] == other
    line, other = line[~known], other[~known]
    distances = lists.distances(rows[line], other)
    nearer = distances < kth[line]
    line, distances = line[nearer], distances[nearer]
    # A listed row is right if fewer than `wanted` rows, listed or missed, are nearer.
    order = np.sort(current[:, :wanted], axis=1)
    missed = np.zeros((len(rows), wanted + 1), np.int64)
    np.add.at(missed, (line, (order[line] <= distances[:, None]).sum(axis=1)), 1)
    ahead = np.arange(wanted)[None, :] + np.cumsum(missed[:, :wanted], axis=1)
    return np.asarray(((ahead < wanted) & np.isfinite(order)).sum(axis=1) / wanted, np.float64)


class Auditor:
    """Draws the rows and keeps the window."""

    def __init__(self, settings: AuditSettings, seed: int) -> None:
        self._settings = settings
        self._rng = np.random.default_rng((seed, 1))
        self._window: deque[tuple[list[float], list[float], list[float]]] = deque(maxlen=settings.window)

    def tick(self, lists: Lists, neighbours: int, changed: Places, affected: Places) -> Audit:
        """Audit rows of each group and return what the window holds."""
        groups = [self._draw(group) for group in (np.flatnonzero(lists.alive), changed, affected)]
        recall = recall_of(lists, np.concatenate(groups), neighbours)
        first, second = len(groups[0]), len(groups[0]) + len(groups[1])
        self._window.append(
            (recall[:first].tolist(), recall[first:second].tolist(), recall[second:].tolist())
        )
        return self.result()

    def result(self) -> Audit:
        """Return what the window holds."""
        pooled = [
            interval([value for tick in self._window for value in tick[group]], self._settings.confidence)
            for group in range(3)
        ]
        return Audit(*pooled)

    def forget(self) -> None:
        """Empty the window: what it saw was repaired."""
        self._window.clear()

    def _draw(self, rows: Places) -> Places:
        count = min(self._settings.rows, len(rows))
        return np.sort(self._rng.choice(rows, count, replace=False)) if count else rows[:0]


def worst(audit: Audit) -> float:
    """Return the lowest mean of the groups that have rows, 1 if none has."""
    return min(
        (each.mean for each in (audit.random, audit.changed, audit.affected) if each.rows), default=1.0
    )
