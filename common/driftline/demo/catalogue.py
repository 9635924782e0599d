"""The trainer's own copy of every item vector, so that an event is ranked against all items seen.

Invariant: `slot` i belongs to the i-th distinct item of the stream, for good. The
copy is refreshed with what was read from the table, never computed here, so it
holds exactly what a reader of the table would have got.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from driftline.demo.tables import Floats, Ids

Slots = NDArray[np.int64]
UNSEEN = -1
_FIRST_CAPACITY = 1024


class Catalogue:
    """Ids of the items seen so far, by slot, and their vectors as last read."""

    def __init__(self, dims: int) -> None:
        self._slots: dict[int, int] = {}
        self._ids = np.empty(_FIRST_CAPACITY, np.uint64)
        self._vectors = np.empty((_FIRST_CAPACITY, dims), np.float32)

    def __len__(self) -> int:
        return len(self._slots)

    @property
    def ids(self) -> Ids:
        """Ids by slot, (n,); a view."""
        return self._ids[: len(self)]

    @property
    def vectors(self) -> Floats:
        """Vectors by slot, (n, d); a view."""
        return self._vectors[: len(self)]

    def find(self, ids: Ids) -> Slots:
        """Return the slot of each id, UNSEEN for one never added."""
        find = self._slots.get
        return np.fromiter((find(i, UNSEEN) for i in ids.tolist()), np.int64, len(ids))

    def add(self, ids: Ids, vectors: Floats) -> None:
        """Give distinct `ids`, none of them seen before, the next slots in the order given."""
        first = len(self)
        needed = first + len(ids)
        if needed > len(self._ids):
            more = max(needed, 2 * len(self._ids)) - len(self._ids)
            self._ids = np.concatenate([self._ids, np.empty(more, np.uint64)])
            self._vectors = np.concatenate(
                [self._vectors, np.empty((more, self._vectors.shape[1]), np.float32)]
            )
        self._slots.update(zip(ids.tolist(), range(first, needed), strict=True))
        self._ids[first:needed] = ids
        self._vectors[first:needed] = vectors

    def refresh(self, slots: Slots, vectors: Floats) -> None:
        """Replace the vectors at `slots` by what was read just now."""
        self._vectors[slots] = vectors


@dataclass(frozen=True, slots=True)
class Ranking:
    """Where the items of a batch stood before it was learned from."""

    scored: NDArray[np.bool_]  # (b,) the item had been seen, so it could be ranked at all
    ranks: NDArray[np.int64]  # (b,) 1 = first; 0 where not scored or not a number


def rank(scores: Floats, users: NDArray[np.int64], slots: Slots) -> Ranking:
    """Rank event i's item `slots[i]` among all columns of row `users[i]` of `scores` (u, n).

    Ties count against the item (a model that scores everything alike finds nothing), and so does NaN.
    Counting the columns that are no worse takes about a quarter of the time of a partial sort.
    """
    scored = slots != UNSEEN
    ranks = np.zeros(len(slots), np.int64)
    events = np.flatnonzero(scored)
    if len(events):
        own = scores[users[events], slots[events]]
        ranks[events] = np.count_nonzero(scores[users[events]] >= own[:, None], axis=1)
    return Ranking(scored, ranks)


def hardest(scores: Floats, count: int) -> Slots:
    """Return the `count` slots that any row of `scores` (u, n) scores highest; all of them if fewer."""
    if count >= scores.shape[1]:
        return np.arange(scores.shape[1], dtype=np.int64)
    best = scores.max(axis=0)
    return np.sort(np.argpartition(-best, count)[:count]) if count else np.empty(0, np.int64)
