"""Exact neighbours of some rows of a version, under each distance.

Invariant: what the graph's exact method would list, ties to the smaller id; a row without a place
under the distance (NaN, length zero under cosine) has no neighbours and is nobody's.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from driftline.graph import brute
from driftline.graph import metric as metrics
from driftline.graph.lists import Lists as GraphLists
from driftline.graph.metric import Floats, Ids, Metric, outward, unusable
from driftline.graph.packing import EMPTY, distances_of, slots_of

NOBODY = -1


@dataclass(frozen=True, slots=True, eq=False)
class Nearest:
    """Neighbours of some rows."""

    places: NDArray[np.int32]  # (n, k) in the rows that were searched, nearest first; NOBODY at the end
    distances: Floats  # (n, k) as under the metric; infinite where there is nobody

    @property
    def listed(self) -> NDArray[np.bool_]:
        """Where there is a neighbour (n, k): a prefix of each line."""
        return np.asarray(self.places != NOBODY)


def nearest(ids: Ids, vectors: Floats, wanted: NDArray[np.int64], width: int, metric: Metric) -> Nearest:
    """Return the `width` nearest of the rows (m, d) to those at the places `wanted` (n,).

    `ids` ascending; a place of NOBODY has no neighbours. Costs n·m·d multiplications.
    """
    usable = np.flatnonzero(~unusable(vectors, metric)) if len(vectors) else np.empty(0, np.int64)
    keys = np.full((len(wanted), width), EMPTY)
    slot_of = np.full(len(vectors) + 1, NOBODY, np.int64)  # the last one answers for NOBODY
    slot_of[usable] = np.arange(len(usable))
    slots = slot_of[wanted]
    here = np.flatnonzero(slots != NOBODY)
    if len(here) and len(usable) > 1:
        lists = GraphLists(vectors.shape[1], width, metric, len(usable))
        lists.write(np.arange(len(usable)), metrics.prepare(ids[usable], vectors[usable], metric))
        keys[here] = brute.nearest(lists, slots[here], width)
    found = slots_of(keys)
    places = np.where(found == NOBODY, NOBODY, np.append(usable, NOBODY)[found]).astype(np.int32)
    return Nearest(places, outward(distances_of(keys), metric))
