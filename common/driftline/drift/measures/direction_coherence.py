"""Direction coherence: does the node move the way the others do?

Invariant: in [-1, 1]; 0 for a node that stayed, and for a tick without a common direction. Independent
steps give values around 0 with a spread of 1/√d; a push of many rows one way gives values near 1.
"""

from __future__ import annotations

import numpy as np

from driftline.drift.measures.base import Doubles, Measure, Pair
from driftline.drift.measures.offset_direction import directions


def direction_coherence(pair: Pair) -> Doubles:
    """Return the cosine between each node's offset and the mean direction of the other nodes' offsets."""
    found = directions(pair)
    others = found.sum(axis=0)[None, :] - found
    size = np.linalg.norm(others, axis=1)
    dot = np.einsum("nd,nd->n", found, others)
    # Below rounding there is no direction left: two opposite steps must not look coherent.
    cosine = np.divide(dot, size, out=np.zeros_like(dot), where=size > 1e-9)
    return np.asarray(np.clip(cosine, -1.0, 1.0), np.float64)


MEASURE = Measure(
    "direction_coherence",
    "cosine between the node's offset and the mean direction of the others",
    -1,
    1,
    "cosine",
    "own; mean direction as in Mardia, Jupp, Directional Statistics, 2000",
    direction_coherence,
)
