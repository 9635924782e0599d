"""Cuts a run of row changes into waves in which no row occurs twice.

Invariant: the k-th change of a row is in wave k, so applying the waves in order
applies every row's changes in log order, as frame-by-frame application would.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

_INDEX_BITS = np.uint64(32)
_INDEX_MASK = np.uint64(0xFFFFFFFF)


def waves(slots: NDArray[np.int32]) -> Iterator[NDArray[np.intp]]:
    """Yield arrays of positions into `slots`, each with distinct slots, in log order per slot."""
    n = len(slots)
    if n == 0:
        return
    # slot and position in one key: an unstable sort is then as good as a stable one, and much faster
    keys = np.sort((slots.astype(np.uint64) << _INDEX_BITS) | np.arange(n, dtype=np.uint64))
    order = (keys & _INDEX_MASK).astype(np.intp)
    ordered = keys >> _INDEX_BITS
    first = np.empty(n, bool)
    first[0] = True
    np.not_equal(ordered[1:], ordered[:-1], out=first[1:])
    if first.all():
        yield np.arange(n)
        return
    starts = np.flatnonzero(first)
    rank = np.arange(n) - np.repeat(starts, np.diff(np.append(starts, n)))
    by_rank = np.argsort(rank.astype(np.uint16) if n < 1 << 16 else rank, kind="stable")
    ends = np.cumsum(np.bincount(rank))
    begin = 0
    for end in ends:
        yield order[by_rank[begin:end]]
        begin = end
