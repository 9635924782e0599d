"""Which nodes of a tick deviate.

Invariant: by the conformal rule the chance that a healthy tick has any deviating node is at most
`node_level`, as far as its nodes are exchangeable with the calibration's; and a deviating node shows
at least the least effect. Where a stratum has too few scores to tell one node from the others, the
scores of the wider stratum are used; where that too has too few, the node cannot deviate.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil, log

import numpy as np
from numpy.typing import NDArray

from driftline.drift.calibration import Calibration
from driftline.drift.conformal import Strata, Tails, benjamini_hochberg
from driftline.drift.measures.base import Doubles
from driftline.drift.scores import DECILES, Scores, kept_strata, moved_strata
from driftline.drift.settings import JudgeSettings

_KINDS = 3  # p-values per node, the least of which is taken: Bonferroni


@dataclass(frozen=True, slots=True, eq=False)
class Deviation:
    """Nodes by the conformal rule."""

    nodes: NDArray[np.int64]  # (k,) index into the scores
    least_p: float
    detectable: int  # least number of nodes that can be told together; more than there are: none can


def deviating(scores: Scores, known: Calibration, settings: JudgeSettings) -> Deviation:
    """Return the deviating nodes of a tick."""
    count = len(scores.nodes)
    if not count:
        return Deviation(np.empty(0, np.int64), 1.0, 1)
    needed = count / settings.node_level
    each = (
        _p(known.moved, moved_strata(scores), scores.moved, needed),
        _p(known.absolute, moved_strata(scores), scores.absolute, needed),
        _p(known.kept, kept_strata(scores), scores.losses, needed),
    )
    p = np.minimum(1.0, _KINDS * np.minimum.reduce(each))
    lost = scores.losses - known.curve.expected(scores.steps)
    # Against the tick's own median, or against that of all ticks: a push of every row has no outliers.
    beyond = np.maximum(scores.moved, scores.absolute - known.usual_step)
    effect = (beyond >= log(settings.least_effect)) | (lost >= settings.least_loss)
    rejected = benjamini_hochberg(p, settings.node_level) & effect
    return Deviation(np.flatnonzero(rejected), float(p.min()), detectable(known, count, settings))


def detectable(known: Calibration, count: int, settings: JudgeSettings) -> int:
    """Return how many of `count` nodes must deviate at once to be told with the calibration so far."""
    least = _KINDS / (int(known.moved.counts[DECILES]) + 1)
    return max(1, ceil(least * count / settings.node_level))


def _p(tails: Tails, strata: tuple[Strata, Strata], scores: Doubles, needed: float) -> Doubles:
    own, pooled = strata
    small = tails.counts[own] + 1 < _KINDS * needed
    return tails.p_values(np.where(small, pooled, own), scores)
