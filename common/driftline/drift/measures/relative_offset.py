"""Relative offset: the offset in units of the node's own neighbourhood.

Invariant: free of the table's scale; below 1 the node is still inside what was its neighbourhood.
"""

from __future__ import annotations

import numpy as np

from driftline.drift.measures.base import Doubles, Measure, Pair, ratio
from driftline.drift.measures.offset_distance import offset_distance


def relative_offset(pair: Pair) -> Doubles:
    """Return |new − old| ÷ distance to the K-th neighbour before; infinite if that is 0 and the node moved.

    NaN for a node that had no neighbours: there is nothing to measure by.
    """
    offset = offset_distance(pair)
    kth = pair.kth.astype(np.float64)
    found = ratio(offset, kth, np.inf)
    found[(kth == 0) & (offset == 0)] = 0.0
    found[~np.isfinite(kth)] = np.nan
    return found


MEASURE = Measure(
    "relative_offset",
    "|new − old| ÷ distance to the K-th neighbour before",
    0,
    float("inf"),
    "neighbourhood radii",
    "own",
    relative_offset,
)
