"""What a graph says: neighbours, and what a tick did to them.

Invariant: `distances` is infinite exactly where a list has no further entry; the id there is 0
and means nothing.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from driftline.graph.audit import Audit
from driftline.graph.metric import Floats, Ids

MOVED = np.uint8(1)  # the row's own vector was moved by a gradient
BORN = np.uint8(2)  # it is new, or was deleted and born again in this tick
PUT = np.uint8(4)  # it was put there: upsert
RESTORED = np.uint8(8)
NEIGHBOUR_MOVED = np.uint8(16)  # it stayed where it was, its neighbourhood did not
REMOVED = np.uint8(32)

CAUSES = {
    int(MOVED): "moved",
    int(BORN): "born",
    int(PUT): "put",
    int(RESTORED): "restored",
    int(NEIGHBOUR_MOVED): "neighbour_moved",
    int(REMOVED): "removed",
}


@dataclass(frozen=True, slots=True, eq=False)
class Neighbours:
    """The nearest rows of some rows, nearest first; ties go to the row that has been in the graph longer."""

    ids: Ids  # (n, k)
    distances: Floats  # (n, k), as under `Metric`

    @property
    def listed(self) -> NDArray[np.bool_]:
        """Where there is an entry, (n, k)."""
        return np.isfinite(self.distances)

    def __len__(self) -> int:
        return len(self.ids)


@dataclass(frozen=True, slots=True, eq=False)
class GraphTick:
    """What one tick changed. Rows whose neighbours stayed the same are not in it, unless they changed."""

    number: int
    ids: Ids  # (t,) in no particular order
    cause: NDArray[np.uint8]  # (t,)
    before: Neighbours  # (t, k)
    after: Neighbours  # (t, k); of a removed row: none
    audit: Audit
    degraded: bool  # recall below the floor: do not judge by this tick
    note: str = ""  # what went wrong, and what is done about it
