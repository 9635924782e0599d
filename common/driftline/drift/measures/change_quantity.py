"""Neighbour change quantity: how many neighbours were exchanged.

Invariant: a whole number from 0 to K; 0 exactly if the sets of neighbours are equal.
"""

from __future__ import annotations

import numpy as np

from driftline.drift.measures.base import Doubles, Measure, Pair, shared


def change_quantity(pair: Pair) -> Doubles:
    """Return max(|old|, |new|) - |old ∩ new|: what came, or what left if more left than came.

    (3,5,6) → (5,6,9): 1.
    """
    larger = np.maximum(pair.old_lists.counts, pair.new_lists.counts)
    return (larger - shared(pair.old_lists, pair.new_lists)).astype(np.float64)


MEASURE = Measure(
    "change_quantity",
    "neighbours exchanged: max(|old|, |new|) − |old ∩ new|",
    0,
    float("inf"),
    "neighbours",
    "US 2025/0265235 A1, neighbour change quantity",
    change_quantity,
)
