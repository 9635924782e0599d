"""Neighbour change ratio: which share of the neighbours was exchanged.

Invariant: in [0, 1]; 0 if the sets are equal, 1 if they have nobody in common.
"""

from __future__ import annotations

import numpy as np

from driftline.drift.measures.base import Doubles, Measure, Pair, ratio
from driftline.drift.measures.change_quantity import change_quantity


def change_ratio(pair: Pair) -> Doubles:
    """Return change quantity / max(|old|, |new|); 0 for a node without neighbours. (3,5,6) → (5,6,9): 1/3."""
    return ratio(change_quantity(pair), np.maximum(pair.old_lists.counts, pair.new_lists.counts), 0.0)


MEASURE = Measure(
    "change_ratio",
    "change quantity ÷ max(|old|, |new|)",
    0,
    1,
    "share",
    "US 2025/0265235 A1, neighbour change ratio",
    change_ratio,
)
