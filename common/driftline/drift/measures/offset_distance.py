"""Node offset distance: how far the node's vector moved.

Invariant: 0 exactly if it did not move.
"""

from __future__ import annotations

from driftline.drift.measures.base import Doubles, Measure, Pair, lengths


def offset_distance(pair: Pair) -> Doubles:
    """Return |new − old|, Euclidean."""
    return lengths(pair.new - pair.old)


MEASURE = Measure(
    "offset_distance",
    "|new − old|, Euclidean",
    0,
    float("inf"),
    "as the vectors",
    "US 2025/0265235 A1, node offset distance",
    offset_distance,
)
