"""The rows that an instance watches of one table: each as its newest state has it.

Invariant: pure; an id has one row or none. Nothing here knows LSNs: what is older than a row is
left out before it comes here, see `gathering`.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from driftline.graph.slots import ABSENT, SlotMap

Ids = NDArray[np.uint64]
Floats = NDArray[np.float32]


class WatchedRows:
    """Vectors by id, and how many ticks a gradient moved each in."""

    def __init__(self, dims: int) -> None:
        self.dims = dims
        self._slots = SlotMap()
        self._vectors = np.empty((0, dims), np.float32)
        self._updates = np.empty(0, np.int32)

    def __len__(self) -> int:
        return len(self._slots)

    @property
    def ids(self) -> Ids:
        """All ids, ascending."""
        return self._slots.ids

    @property
    def vectors(self) -> Floats:
        """The rows of `ids`, in their order; a copy."""
        return self._vectors[self._slots.slots]

    @property
    def updates(self) -> NDArray[np.int32]:
        """The counts of `ids`, in their order; a copy."""
        return self._updates[self._slots.slots]

    @property
    def nbytes(self) -> int:
        """Bytes of all arrays."""
        return self._slots.nbytes + self._vectors.nbytes + self._updates.nbytes

    def known(self, ids: Ids) -> NDArray[np.bool_]:
        """Return which of `ids` have a row."""
        return np.asarray(self._slots.find(ids) != ABSENT, np.bool_)

    def take(self, ids: Ids) -> tuple[Floats, NDArray[np.int64]]:
        """Return rows (n, d) and counts (n,); zeros for an id without a row."""
        slots = self._slots.find(ids)
        there = slots != ABSENT
        vectors = np.zeros((len(ids), self.dims), np.float32)
        updates = np.zeros(len(ids), np.int64)
        vectors[there], updates[there] = self._vectors[slots[there]], self._updates[slots[there]]
        return vectors, updates

    def put(self, ids: Ids, vectors: Floats, counted: NDArray[np.bool_]) -> None:
        """Give distinct `ids` their rows; those `counted` have had one update more."""
        slots = self._slots.find(ids)
        new = slots == ABSENT
        slots[new] = self._slots.add(ids[new])
        self._make_room()
        self._updates[slots[new]] = 0
        self._vectors[slots] = vectors
        self._updates[slots] += counted

    def drop(self, ids: Ids) -> None:
        """Forget distinct `ids`; those without a row change nothing."""
        there = ids[self.known(ids)]
        self._slots.remove(there)

    def restore(self, ids: Ids, vectors: Floats, updates: NDArray[np.int32]) -> None:
        """Begin with these rows and no other."""
        self._slots = SlotMap()
        slots = self._slots.add(ids)
        self._make_room()
        self._vectors[slots], self._updates[slots] = vectors, updates

    def _make_room(self) -> None:
        lacking = self._slots.capacity - len(self._vectors)
        if lacking > 0:
            lacking = max(lacking, len(self._vectors) // 8)
            self._vectors = np.concatenate([self._vectors, np.zeros((lacking, self.dims), np.float32)])
            self._updates = np.concatenate([self._updates, np.zeros(lacking, np.int32)])
