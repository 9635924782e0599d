"""The rows of a shard in memory: a cache over Redis, as parallel arrays indexed by slot.

Invariants: a slot that is not alive holds exactly what the id would be born with,
so a gradient needs no special case for a birth. A row that is dirty or in flight
is never dropped: Redis does not have its newest value yet.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from driftline.frames.states import TOMBSTONE
from driftline.shard.dictionary import NOT_FOUND, Dictionary

CLEAN, DIRTY, IN_FLIGHT = np.uint8(0), np.uint8(1), np.uint8(2)
_GROWTH = 16  # a cache grows by a sixteenth: more would lie idle, and growing in place costs little
_ROOM = 8  # part of a budget that is kept free for the next batch
_MOVED = 4096
_FIRST_CAPACITY = 256


@dataclass(frozen=True, slots=True)
class RowBlock:
    """Rows as Redis holds them; where `present` is False the other columns carry nothing."""

    ids: NDArray[np.uint64]  # (n,), distinct
    present: NDArray[np.bool_]  # (n,)
    rows: NDArray[np.float32]  # (n, d)
    state: NDArray[np.float32]  # (n, s)
    lsn: NDArray[np.uint64]  # (n,)
    ordinals: NDArray[np.uint32]  # (n,)


class RowCache:
    """Parallel arrays over slots [0, used), with an id dictionary."""

    def __init__(
        self,
        dim: int,
        initial_rows: Callable[[NDArray[np.uint64]], NDArray[np.float32]],
        initial_state: NDArray[np.float32],
    ) -> None:
        self._initial_rows = initial_rows
        self._initial_state = initial_state
        self._dictionary = Dictionary()
        self._dirty: list[NDArray[np.int32]] = []
        self._in_flight: NDArray[np.int32] | None = None
        self._tick = np.uint32(0)
        self.used = 0
        self.alive_count = 0
        self.dirty_count = 0
        capacity = _FIRST_CAPACITY
        self.ids = np.zeros(capacity, np.uint64)
        self.rows = np.zeros((capacity, dim), np.float32)
        self.state = np.zeros((capacity, len(initial_state)), np.float32)
        self.lsn = np.zeros(capacity, np.uint64)
        self.ordinals = np.zeros(capacity, np.uint32)
        self.flags = np.zeros(capacity, np.uint8)
        self.alive = np.zeros(capacity, bool)
        self._status = np.zeros(capacity, np.uint8)
        self._last_use = np.zeros(capacity, np.uint32)
        self.row_bytes = sum(int(getattr(self, name)[0].nbytes) for name in self._COLUMNS)
        """Bytes one slot takes in all arrays together."""

    _COLUMNS = ("ids", "rows", "state", "lsn", "ordinals", "flags", "alive", "_status", "_last_use")

    @property
    def dirty_bytes(self) -> int:
        """Bytes of the rows that wait for a commit."""
        return self.dirty_count * self.row_bytes

    @property
    def nbytes(self) -> int:
        """Bytes allocated: arrays and dictionary."""
        return sum(int(getattr(self, name).nbytes) for name in self._COLUMNS) + self._dictionary.nbytes

    def find(self, ids: NDArray[np.uint64]) -> NDArray[np.int32]:
        """Return the slot of each id, NOT_FOUND where the cache does not know the id."""
        return self._dictionary.find(ids, self.ids)

    def slots(self, ids: NDArray[np.uint64]) -> NDArray[np.int32]:
        """Return the slot of each id; ids the cache does not know are entered as absent."""
        slots = self.find(ids)
        unknown = slots == NOT_FOUND
        if unknown.any():
            self.enter_absent(np.unique(ids[unknown]))
            slots[unknown] = self.find(ids[unknown])
        self._tick += np.uint32(1)
        self._last_use[slots] = self._tick
        return slots

    def enter_absent(self, ids: NDArray[np.uint64]) -> None:
        """Enter distinct unknown ids as rows that do not exist yet."""
        slots = self._append(ids)
        self.reset(slots)

    def enter(self, block: RowBlock) -> None:
        """Enter what was fetched from Redis, leaving out ids that are known by now."""
        fresh = self.find(block.ids) == NOT_FOUND
        here = fresh & block.present
        slots = self._append(block.ids[here])
        self.rows[slots] = block.rows[here]
        self.state[slots] = block.state[here]
        self.lsn[slots] = block.lsn[here]
        self.ordinals[slots] = block.ordinals[here]
        self.alive[slots] = True
        self.alive_count += len(slots)
        self.enter_absent(block.ids[fresh & ~block.present])

    def reset(self, slots: NDArray[np.int32]) -> None:
        """Put `slots` back to what their ids are born with; they are not alive then."""
        self.alive_count -= int(np.count_nonzero(self.alive[slots]))
        self.rows[slots] = self._initial_rows(self.ids[slots])
        self.state[slots] = self._initial_state
        self.alive[slots] = False

    def clear(self) -> None:
        """Forget every row, dirty ones too: what the shard holds has been replaced as a whole."""
        assert self._in_flight is None, "a flight is under way"
        self.used = self.alive_count = self.dirty_count = 0
        self._dirty.clear()
        self._dictionary = Dictionary()
        for name in self._COLUMNS:
            getattr(self, name)[:_FIRST_CAPACITY] = 0  # what stays allocated, as if new
            self._resize(name, _FIRST_CAPACITY)

    def give_birth(self, slots: NDArray[np.int32], first_ordinal: int) -> None:
        """Make dead `slots` alive, with ordinals in the order given."""
        self.ordinals[slots] = np.arange(first_ordinal, first_ordinal + len(slots), dtype=np.uint32)
        self.alive[slots] = True
        self.alive_count += len(slots)

    def touch(self, slots: NDArray[np.int32], lsn: NDArray[np.uint64], flags: np.uint8) -> None:
        """Note that distinct `slots` were changed at `lsn` by the kind of event in `flags`.

        What is published as one state keeps the kinds of all its changes: a row that was put and then
        moved by a gradient did not come so far by the gradient. A deletion is the end of what was before.
        """
        self.lsn[slots] = lsn
        again = self._status[slots] == DIRTY
        before = self.flags[slots] & ~TOMBSTONE if flags != TOMBSTONE else np.uint8(0)
        self.flags[slots] = np.where(again, before | flags, flags)
        fresh = slots[~again]
        if len(fresh):
            self._status[fresh] = DIRTY
            self._dirty.append(fresh)
            self.dirty_count += len(fresh)

    def begin_flight(self) -> NDArray[np.int32]:
        """Take all dirty slots in flight and return them; only one flight at a time."""
        assert self._in_flight is None, "a flight is already under way"
        slots = np.concatenate(self._dirty) if self._dirty else np.empty(0, np.int32)
        self._status[slots] = IN_FLIGHT
        self._dirty.clear()
        self.dirty_count = 0
        self._in_flight = slots
        return slots

    def end_flight(self) -> None:
        """The flight is committed: what was not changed since is clean."""
        assert self._in_flight is not None, "no flight is under way"
        slots = self._in_flight
        self._status[slots[self._status[slots] == IN_FLIGHT]] = CLEAN
        self._in_flight = None

    def trim(self, budget: int) -> int:
        """Drop clean rows, those unused longest first, to about half of `budget` bytes once near it.

        Near is seven eighths: the budget is kept as long as a batch brings no more than the rest
        and what growing adds to it. Returns how many rows were dropped.
        """
        if self.nbytes <= budget - budget // _ROOM:
            return 0
        status = self._status[: self.used]
        clean = np.flatnonzero(status == CLEAN).astype(np.int32)
        room = max(0, budget // 2 // (self.row_bytes + 16) - (self.used - len(clean)))
        if room >= len(clean):
            return 0
        by_use = clean[np.argsort(self._last_use[clean], kind="stable")]
        keep = np.sort(np.concatenate((by_use[len(clean) - room :], np.flatnonzero(status != CLEAN))))
        del status
        dropped = self.used - len(keep)
        for name in self._COLUMNS:
            _move_down(getattr(self, name), keep)
            getattr(self, name)[len(keep) : _FIRST_CAPACITY] = 0  # what stays allocated, as if new
            self._resize(name, max(len(keep), _FIRST_CAPACITY))
        self.used = len(keep)
        self.alive_count = int(np.count_nonzero(self.alive[: self.used]))
        self._dictionary.rebuild(np.arange(self.used, dtype=np.int32), self.ids)
        self._dirty = [np.flatnonzero(self._status[: self.used] == DIRTY).astype(np.int32)]
        if self._in_flight is not None:  # what was changed since is dirty, and has no part in the landing
            self._in_flight = np.flatnonzero(self._status[: self.used] == IN_FLIGHT).astype(np.int32)
        return dropped

    def _append(self, ids: NDArray[np.uint64]) -> NDArray[np.int32]:
        start, end = self.used, self.used + len(ids)
        if end > len(self.ids):
            self._grow(max(end, len(self.ids) + len(self.ids) // _GROWTH))
        slots = np.arange(start, end, dtype=np.int32)
        self.ids[start:end] = ids
        self.alive[start:end] = False
        self._status[start:end] = CLEAN
        self._last_use[start:end] = self._tick
        self.used = end
        self._dictionary.insert(slots, self.ids, end)
        return slots

    def _grow(self, capacity: int) -> None:
        for name in self._COLUMNS:
            self._resize(name, capacity)

    def _resize(self, name: str, capacity: int) -> None:
        """Give a column another capacity, where it lies if nobody looks at it: else old and new would both
        be in memory, and rows of a growing cache be copied again and again."""
        column: NDArray[np.generic] = self.__dict__.pop(name)
        try:
            column.resize((capacity, *column.shape[1:]))
        except ValueError:  # a view of it is in use
            old, column = column, np.zeros((capacity, *column.shape[1:]), column.dtype)
            kept = min(capacity, len(old))
            column[:kept] = old[:kept]
        self.__dict__[name] = column


def _move_down(column: NDArray[np.generic], keep: NDArray[np.intp]) -> None:
    """Move the entries `keep`, ascending, to the front, a few at a time."""
    for start in range(0, len(keep), _MOVED):
        some = keep[start : start + _MOVED]
        column[start : start + len(some)] = column[some]
