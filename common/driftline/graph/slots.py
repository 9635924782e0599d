"""Ids to slots and back.

Invariant: an id has at most one slot; `key[slot]` is its id while it lives, and stays readable
until the slot is given to another one. A freed slot is given away from the next call on, the
least first, so the same calls give the same slots.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from driftline.graph.lists import Places
from driftline.graph.metric import Ids

ABSENT = -1


class SlotMap:
    """A sorted array of ids beside their slots; insertion costs a copy, lookup a binary search."""

    def __init__(self) -> None:
        self.key: Ids = np.empty(0, np.uint64)  # by slot
        self._ids: Ids = np.empty(0, np.uint64)  # sorted
        self._slots: Places = np.empty(0, np.int64)
        self._free: Places = np.empty(0, np.int64)
        self._used = 0

    def __len__(self) -> int:
        return len(self._ids)

    @property
    def ids(self) -> Ids:
        """Live ids, ascending."""
        return self._ids

    @property
    def slots(self) -> Places:
        """The slots of `ids`, in their order."""
        return self._slots

    @property
    def capacity(self) -> int:
        """Slots ever used."""
        return self._used

    @property
    def nbytes(self) -> int:
        """Bytes of all arrays."""
        return self.key.nbytes + self._ids.nbytes + self._slots.nbytes + self._free.nbytes

    def find(self, ids: Ids) -> Places:
        """Return the slot of each id, ABSENT where it has none."""
        if not len(self._ids):
            return np.full(len(ids), ABSENT, np.int64)
        place = np.minimum(np.searchsorted(self._ids, ids), len(self._ids) - 1)
        return np.where(self._ids[place] == ids, self._slots[place], ABSENT)

    def add(self, ids: Ids) -> Places:
        """Give slots to distinct new ids, in ascending order of id; return them in the order given."""
        order = np.argsort(ids, kind="stable")
        reused, self._free = self._free[: len(ids)], self._free[len(ids) :]
        fresh = np.arange(self._used, self._used + len(ids) - len(reused))
        self._used += len(fresh)
        if self._used > len(self.key):
            room = max(self._used, len(self.key) + len(self.key) // 8)
            self.key = np.concatenate([self.key, np.zeros(room - len(self.key), np.uint64)])
        slots = np.empty(len(ids), np.int64)
        slots[order] = np.concatenate([reused, fresh])
        self.key[slots] = ids
        places = np.searchsorted(self._ids, ids[order])
        self._ids = np.insert(self._ids, places, ids[order])
        self._slots = np.insert(self._slots, places, slots[order])
        return slots

    def remove(self, ids: Ids) -> None:
        """Take away distinct live ids; `key` of their slots stays until they are given away."""
        places = np.searchsorted(self._ids, ids)
        self._free = np.sort(np.concatenate([self._free, self._slots[places]]))
        self._ids = np.delete(self._ids, places)
        self._slots = np.delete(self._slots, places)

    def members(self, slots: NDArray[np.int32]) -> Ids:
        """Return the id of each slot, 0 for -1."""
        found = self.key[slots]
        found[slots < 0] = 0
        return found
