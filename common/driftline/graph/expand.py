"""Candidates out of the graph itself: M-order neighbourhoods and reverse neighbours.

Invariant: only the lists as given are read; nothing is changed.
Source of the M-order neighbourhood: US 2025/0265235 A1 (renewal of a row's neighbours from
its M-order neighbours of the tick before).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from driftline.graph.lists import Lists, Places
from driftline.graph.packing import Keys, distinct, slots_of
from driftline.graph.reverse import ReverseIndex

_HOLDERS = 1_000
"""Reverse neighbours looked at per neighbour. Hubs, above all under the inner product, are listed by
a large part of the table; the audit shows what this costs."""


def neighbourhood(lists: Lists, rows: Places, order: int, width: int) -> NDArray[np.int32]:
    """Return the slots (n, width + … + width^order) within `order` hops of each row, -1 where a list ends."""
    around = slots_of(lists.keys[rows, :width])
    levels = [around]
    for _ in range(1, order):
        beyond = slots_of(lists.keys[np.maximum(around, 0), :width])
        beyond[around < 0] = -1
        around = beyond.reshape(len(rows), -1)
        levels.append(around)
    return np.concatenate(levels, axis=1)


def reverse_pairs(reverse: ReverseIndex, rows: Places, keys: Keys, nearest: int) -> tuple[Places, Places]:
    """Return (line, q): q lists one of the `nearest` first neighbours of rows[line]; distinct, q != row."""
    neighbours = slots_of(keys[:, :nearest]).astype(np.int64)
    line, place = np.nonzero(neighbours >= 0)
    named = neighbours[line, place]
    targets = distinct(named)
    of_target = np.searchsorted(targets, named)
    held = reverse.holders(targets, _HOLDERS)
    counts = np.bincount(held.of, minlength=len(targets))
    starts = np.cumsum(counts) - counts
    times = counts[of_target]
    at = (
        np.arange(int(times.sum()))
        - np.repeat(np.cumsum(times) - times, times)
        + np.repeat(starts[of_target], times)
    )
    lines, sources = np.repeat(line, times), held.sources[at]
    packed = distinct((lines.astype(np.uint64) << np.uint64(32)) | sources.astype(np.uint64))
    lines = (packed >> np.uint64(32)).astype(np.int64)
    sources = (packed & np.uint64(0xFFFFFFFF)).astype(np.int64)
    strange = sources != rows[lines]
    return lines[strange], sources[strange]
