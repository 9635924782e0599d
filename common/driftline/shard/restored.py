"""The restore-rows in force: which rows were put back, at which LSN and log time.

Invariant: three columns sorted by id, replaced as a whole by each op and each time that
some end, never changed in place. An op is a full stop of its shard, and its rows end
together: what both cost beside it (some 2 ms with 300,000 ids in force) does not matter;
a frame pays for a search of its own ids only.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np
from numpy.typing import NDArray

Ids = NDArray[np.uint64]


class Restored(Mapping[int, tuple[int, int]]):
    """Restored rows: id -> (LSN, log time); iterates in the order of ids."""

    def __init__(self, ids: Ids | None = None, lsns: Ids | None = None, times: Ids | None = None) -> None:
        none = np.empty(0, np.uint64)
        ids, lsns, times = (none if each is None else each for each in (ids, lsns, times))
        order = np.argsort(ids, kind="stable")
        self._enter(ids[order], lsns[order], times[order])

    def set(self, ids: Ids, at: int, time: int) -> None:
        """Note that an op at LSN `at` and log time `time` put back `ids`, which rise strictly."""
        keep = ~self._holds(ids)
        known = self.ids[keep]
        places = known.searchsorted(ids)
        self._enter(
            np.insert(known, places, ids),
            np.insert(self.lsns[keep], places, np.uint64(at)),
            np.insert(self.times[keep], places, np.uint64(time)),
        )

    def end(self, oldest: int) -> list[int]:
        """Forget what was put back before log time `oldest`; return those ids."""
        if not len(self.ids) or self._oldest >= oldest:
            return []
        ends = self.times < np.uint64(oldest)
        ended: list[int] = self.ids[ends].tolist()
        self._enter(self.ids[~ends], self.lsns[~ends], self.times[~ends])
        return ended

    def superseded(self, ids: Ids, read_pos: int) -> NDArray[np.bool_]:
        """Return a mask of `ids` that were put back at or after LSN `read_pos`."""
        if not len(self.ids):
            return np.zeros(len(ids), bool)
        at = np.minimum(self.ids.searchsorted(ids), len(self.ids) - 1)
        found: NDArray[np.bool_] = (self.ids[at] == ids) & (self.lsns[at] >= np.uint64(read_pos))
        return found

    def __getitem__(self, row: int) -> tuple[int, int]:
        at = int(self.ids.searchsorted(np.uint64(row)))
        if at == len(self.ids) or self.ids[at] != row:
            raise KeyError(row)
        return int(self.lsns[at]), int(self.times[at])

    def __iter__(self) -> Iterator[int]:
        return iter(self.ids.tolist())

    def __len__(self) -> int:
        return len(self.ids)

    def _enter(self, ids: Ids, lsns: Ids, times: Ids) -> None:
        self.ids, self.lsns, self.times = ids, lsns, times
        self._oldest = int(times.min()) if len(times) else 0

    def _holds(self, ids: Ids) -> NDArray[np.bool_]:
        """Return which of the rows known are among `ids`."""
        held = np.zeros(len(self.ids), bool)
        if len(self.ids):
            at = np.minimum(self.ids.searchsorted(ids), len(self.ids) - 1)
            held[at[self.ids[at] == ids]] = True
        return held
