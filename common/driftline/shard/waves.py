"""Cuts a run of row changes into waves in which no row occurs twice.

Invariant: the k-th change of a row is in wave k, so applying the waves in order
applies every row's changes in log order, as frame-by-frame application would.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

_INDEX_BITS = np.uint64(32)
_INDEX_MASK = np.uint64(0xFFFFFFFF)


@dataclass(frozen=True, slots=True)
class Schedule:
    """Waves over a compact copy of the rows: wave k changes the first `ends[k] - ends[k-1]` of them.

    Rows that change most often come first, so a wave is a slice, not a selection.
    """

    slots: NDArray[np.int32]  # (m,), distinct
    order: NDArray[np.intp]  # (n,): places of the changes, wave by wave, in the order of `slots`
    ends: list[int]  # where each wave ends in `order`
    last: NDArray[np.intp]  # (m,): place of each row's last change

    @property
    def first(self) -> NDArray[np.intp]:
        """Place of each row's first change."""
        return self.order[: len(self.slots)]


def schedule(slots: NDArray[np.int32]) -> Schedule:
    """Return how to apply changes of n ≥ 1 `slots`."""
    n = len(slots)
    order, ordered, starts = _grouped(slots)
    distinct = ordered[starts].astype(np.int32)
    if len(starts) == n:
        return Schedule(distinct, order, [n], order)
    counts = np.diff(np.append(starts, n))
    by_count = np.argsort(-counts, kind="stable")
    place = np.empty(len(starts), np.intp)  # of each group among the compact rows
    place[by_count] = np.arange(len(starts))
    rank = np.arange(n) - np.repeat(starts, counts)
    ends = np.cumsum(np.bincount(rank))
    target = np.repeat(place, counts) + np.concatenate(([0], ends[:-1]))[rank]
    by_wave = np.empty(n, np.intp)
    by_wave[target] = order
    last = order[starts + counts - 1][by_count]
    return Schedule(distinct[by_count], by_wave, ends.tolist(), last)


def waves(slots: NDArray[np.int32]) -> Iterator[NDArray[np.intp]]:
    """Yield arrays of positions into `slots`, each with distinct slots, in log order per slot."""
    n = len(slots)
    if n == 0:
        return
    order, _, starts = _grouped(slots)
    if len(starts) == n:
        yield np.arange(n)
        return
    rank = np.arange(n) - np.repeat(starts, np.diff(np.append(starts, n)))
    by_rank = np.argsort(rank.astype(np.uint16) if n < 1 << 16 else rank, kind="stable")
    ends = np.cumsum(np.bincount(rank))
    begin = 0
    for end in ends:
        yield order[by_rank[begin:end]]
        begin = end


def _grouped(slots: NDArray[np.int32]) -> tuple[NDArray[np.intp], NDArray[np.uint64], NDArray[np.intp]]:
    """Return places sorted by slot and place, the slots in that order, and where each slot's group starts."""
    n = len(slots)
    # slot and position in one key: an unstable sort is then as good as a stable one, and much faster
    keys = np.sort((slots.astype(np.uint64) << _INDEX_BITS) | np.arange(n, dtype=np.uint64))
    ordered = keys >> _INDEX_BITS
    first = np.empty(n, bool)
    first[0] = True
    np.not_equal(ordered[1:], ordered[:-1], out=first[1:])
    return (keys & _INDEX_MASK).astype(np.intp), ordered, np.flatnonzero(first)
