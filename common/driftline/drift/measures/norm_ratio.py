"""Norm ratio: by what factor the vector grew.

Invariant: 1 for a vector that only turned, and for one that was and is zero.
"""

from __future__ import annotations

import numpy as np

from driftline.drift.measures.base import Doubles, Measure, Pair, lengths, ratio


def norm_ratio(pair: Pair) -> Doubles:
    """Return |new| ÷ |old|; infinite for a vector that was zero and is not."""
    old, new = lengths(pair.old), lengths(pair.new)
    found = ratio(new, old, np.inf)
    found[(old == 0) & (new == 0)] = 1.0
    return found


MEASURE = Measure("norm_ratio", "|new| ÷ |old|", 0, float("inf"), "factor", "own", norm_ratio)
