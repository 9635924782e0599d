"""Node offset direction: by which angle the node's vector turned.

Invariant: in [0, π]; 0 for a vector that only grew, and for one that is zero before or after.
The direction itself, a unit vector per node, is `directions`.
"""

from __future__ import annotations

import numpy as np

from driftline.drift.measures.base import Doubles, Measure, Pair, lengths


def offset_direction(pair: Pair) -> Doubles:
    """Return the angle between old and new vector: 2·atan2(|u − v|, |u + v|) of their unit vectors.

    That form keeps its precision for small angles, where arccos of the cosine has none left.
    """
    old, new = lengths(pair.old), lengths(pair.new)
    there = (old > 0) & (new > 0)
    u = pair.old / np.where(there, old, 1)[:, None]
    v = pair.new / np.where(there, new, 1)[:, None]
    angle = 2 * np.arctan2(np.linalg.norm(u - v, axis=1), np.linalg.norm(u + v, axis=1))
    return np.where(there, angle, 0.0)


def directions(pair: Pair) -> Doubles:
    """Return the unit vector (n, d) of each node's offset; zero for a node that stayed."""
    offsets = pair.new.astype(np.float64) - pair.old
    size = np.linalg.norm(offsets, axis=1, keepdims=True)
    return np.asarray(np.divide(offsets, size, out=np.zeros_like(offsets), where=size > 0), np.float64)


MEASURE = Measure(
    "offset_direction",
    "angle between old and new vector",
    0,
    float(np.pi),
    "radians",
    "US 2025/0265235 A1, node offset direction; angle after Kahan, 2·atan2",
    offset_direction,
)
