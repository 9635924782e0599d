"""Open-addressing dictionary from 64-bit ids to slots of an array, vectorised.

Invariant: an id has at most one slot, slots are handed out by the caller, and
`ids[slot]` is the only copy of the key. Slots are places in memory; they carry
no meaning in the log (ordinals do).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from driftline.ids import splitmix64

NOT_FOUND = -1
_EMPTY = np.int32(-1)
_MIN_BITS = 10


class Dictionary:
    """Linear probing over a power-of-two table of int32 slots, at most half full."""

    def __init__(self) -> None:
        self._bits = _MIN_BITS
        self._table = np.full(1 << self._bits, _EMPTY, np.int32)

    @property
    def nbytes(self) -> int:
        """Bytes of the table."""
        return self._table.nbytes

    def find(self, ids: NDArray[np.uint64], keys: NDArray[np.uint64]) -> NDArray[np.int32]:
        """Return the slot of each id, NOT_FOUND where it has none. `keys` is the array of ids by slot.

        Duplicates are allowed. Never raises for an unknown id.
        """
        place = self._home(ids)
        slots = self._table[place]
        found = np.where((slots >= 0) & (keys[slots] == ids), slots, _EMPTY)
        open_ = np.flatnonzero((slots >= 0) & (found < 0))
        mask = len(self._table) - 1
        while len(open_):
            place[open_] = (place[open_] + 1) & mask
            slots = self._table[place[open_]]
            hit = (slots >= 0) & (keys[slots] == ids[open_])
            found[open_[hit]] = slots[hit]
            open_ = open_[(slots >= 0) & ~hit]
        return found

    def insert(self, slots: NDArray[np.int32], keys: NDArray[np.uint64], used: int) -> None:
        """Enter distinct new ids `keys[slots]`; `used` counts all ids then in the dictionary."""
        if 2 * used > len(self._table):
            self.rebuild(np.arange(used, dtype=np.int32), keys)
            return
        self._place(slots, keys)

    def rebuild(self, slots: NDArray[np.int32], keys: NDArray[np.uint64]) -> None:
        """Forget everything and enter `keys[slots]`."""
        self._bits = max(_MIN_BITS, (2 * max(len(slots), 1) - 1).bit_length())
        self._table = np.full(1 << self._bits, _EMPTY, np.int32)
        self._place(slots, keys)

    def _home(self, ids: NDArray[np.uint64]) -> NDArray[np.int64]:
        # the low bits of this hash choose the shard, hence are the same for all ids here
        return np.asarray(splitmix64(ids) >> np.uint64(64 - self._bits), dtype=np.int64)

    def _place(self, slots: NDArray[np.int32], keys: NDArray[np.uint64]) -> None:
        place = self._home(keys[slots])
        mask = len(self._table) - 1
        while len(slots):
            free = self._table[place] < 0
            self._table[place[free]] = slots[free]  # of several for one place, one stays
            lost = self._table[place] != slots
            slots, place = slots[lost], (place[lost] + 1) & mask
