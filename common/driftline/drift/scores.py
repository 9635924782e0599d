"""From an observation to what is calibrated: scores and strata of nodes, statistics of the tick.

Invariant: pure, and free of the learning rate: a node is read against the tick's median and against
nodes that moved as far, a tick against the learning rate the trainer states.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from driftline.drift.conformal import Strata
from driftline.drift.measures.base import Doubles
from driftline.drift.observation import Observation

CHANNELS = ("movement", "neighbours", "coherence", "rotation", "tail")
"""Statistics of a tick: median step; neighbourhood lost beyond what the step explains; steps in one
direction; steps explained by one rotation; the largest steps against the median."""
DECILES = 10
OFFSET_EDGES = np.log(np.array([0.02, 0.05, 0.1, 0.2, 0.4, 0.8, 1.6]))
MOVED_STRATA = DECILES + 1  # the last one holds all
KEPT_STRATA = (len(OFFSET_EDGES) + 1) * (DECILES + 1)  # per offset bin the last one holds all deciles
CURVE_EDGES = np.log(np.geomspace(0.005, 8, 23))
LEAST_ROWS = 20
"""Ticks with fewer rows have no tick statistics: quiet, not suspicious."""


@dataclass(frozen=True, slots=True, eq=False)
class Curve:
    """Mean loss of neighbourhood (1 − Jaccard) by size of the step, as healthy ticks showed it."""

    counts: Doubles  # (bins,)
    steps: Doubles  # (bins,) sum of log relative offsets
    losses: Doubles  # (bins,) sum of losses

    @classmethod
    def empty(cls) -> Curve:
        """Return a curve that has seen nothing."""
        bins = len(CURVE_EDGES) + 1
        return cls(np.zeros(bins), np.zeros(bins), np.zeros(bins))

    def with_nodes(self, steps: Doubles, losses: Doubles) -> Curve:
        """Return the curve with more nodes (n,) in it."""
        bins, size = np.searchsorted(CURVE_EDGES, steps), len(self.counts)
        return Curve(
            self.counts + np.bincount(bins, minlength=size),
            self.steps + np.bincount(bins, steps, size),
            self.losses + np.bincount(bins, losses, size),
        )

    def expected(self, steps: Doubles) -> Doubles:
        """Return the usual loss (n,) of nodes that moved so far; 0 without any history."""
        seen = self.counts > 0
        if not seen.any():
            return np.zeros(len(steps))
        counts = self.counts[seen]
        return np.interp(steps, self.steps[seen] / counts, self.losses[seen] / counts)


@dataclass(frozen=True, slots=True, eq=False)
class Scores:
    """The nodes of a tick that can be scored: those that moved, and had a neighbourhood to measure by."""

    nodes: NDArray[np.int64]  # (m,) index into the observation's rows
    steps: Doubles  # (m,) log relative offset
    losses: Doubles  # (m,) 1 − Jaccard
    moved: Doubles  # (m,) step beyond the tick's median
    absolute: Doubles  # (m,) step beyond what the learning rate explains: a push of all rows shows here
    decile: Strata  # (m,) of the update count, among the tick's rows
    bin: Strata  # (m,) of the step


def scores_of(seen: Observation) -> Scores:
    """Return the scores of a tick's nodes."""
    relative = seen.measures["relative_offset"]
    nodes = np.flatnonzero(np.isfinite(relative) & (relative > 0))
    steps = np.log(relative[nodes])
    losses = 1 - seen.measures["jaccard"][nodes]
    middle = float(np.median(steps)) if len(steps) else 0.0
    updates = seen.updates[nodes]
    ordered = np.sort(updates)
    rank = np.searchsorted(ordered, updates, side="left") + np.searchsorted(ordered, updates, side="right")
    decile = np.minimum(DECILES - 1, DECILES * rank // max(2 * len(updates), 1))
    absolute = steps - log_rate(seen)
    return Scores(
        nodes, steps, losses, steps - middle, absolute, decile, np.searchsorted(OFFSET_EDGES, steps)
    )


def log_rate(seen: Observation) -> float:
    """Return the logarithm of the learning rate the trainer states, 0 without one."""
    return float(np.log(seen.learning_rate)) if seen.learning_rate else 0.0


def moved_strata(scores: Scores) -> tuple[Strata, Strata]:
    """Return each node's stratum for its step, and the one all are pooled in."""
    return scores.decile, np.full(len(scores.nodes), DECILES)


def kept_strata(scores: Scores) -> tuple[Strata, Strata]:
    """Return each node's stratum for its loss, and that of its offset bin with all deciles pooled."""
    first = scores.bin * (DECILES + 1)
    return first + scores.decile, first + DECILES


def statistics_of(seen: Observation, scores: Scores, curve: Curve) -> Doubles | None:
    """Return the tick's statistics, one per channel; None with fewer than LEAST_ROWS scored nodes."""
    if len(scores.nodes) < LEAST_ROWS:
        return None
    excess = float((scores.losses - curve.expected(scores.steps)).mean())
    top = max(1, len(scores.moved) // 100)
    largest = float(np.partition(scores.moved, len(scores.moved) - top)[-top:].mean())
    return np.array([float(np.median(scores.absolute)), excess, seen.coherence, seen.turned, largest])
