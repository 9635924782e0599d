"""The graph's arrays, one line per slot.

Invariant: `keys[s]` is sorted and names only live rows, never s itself; every key holds the
distance of the rows as they are now (the M-order rule alone does not keep that). `bound[s]`
is the distance below which every row is believed to be listed.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from driftline.graph import metric as metrics
from driftline.graph.metric import Floats, Metric
from driftline.graph.packing import EMPTY, Keys, distances_of, pack

Places = NDArray[np.int64]
_BLOCK_CELLS = 1 << 20  # of a distance block: 4 MiB of float32
INFINITE = np.float32(np.inf)


class Lists:
    """Vectors, neighbour lists of `width`, bounds and liveness by slot."""

    def __init__(self, dims: int, width: int, metric: Metric, capacity: int) -> None:
        self.metric = metric
        self.width = width
        self.vectors: Floats = np.zeros((capacity, dims), np.float32)
        self.squares: Floats = np.full(capacity, INFINITE, np.float32)  # of a dead slot: infinite
        self.keys: Keys = np.full((capacity, width), EMPTY)
        self.bound: Floats = np.full(capacity, INFINITE, np.float32)
        self.alive: NDArray[np.bool_] = np.zeros(capacity, bool)

    def __len__(self) -> int:
        return int(np.count_nonzero(self.alive))

    @property
    def nbytes(self) -> int:
        """Bytes of all arrays."""
        arrays = (self.vectors, self.squares, self.keys, self.bound, self.alive)
        return sum(array.nbytes for array in arrays)

    def grow(self, capacity: int) -> None:
        """Make room for slots up to `capacity`."""
        more = capacity - len(self.alive)
        if more <= 0:
            return
        dims = self.vectors.shape[1]
        self.vectors = np.concatenate([self.vectors, np.zeros((more, dims), np.float32)])
        self.squares = np.concatenate([self.squares, np.full(more, INFINITE, np.float32)])
        self.keys = np.concatenate([self.keys, np.full((more, self.width), EMPTY)])
        self.bound = np.concatenate([self.bound, np.full(more, INFINITE, np.float32)])
        self.alive = np.concatenate([self.alive, np.zeros(more, bool)])

    def write(self, slots: Places, vectors: Floats) -> None:
        """Put rows into slots; their lists are the caller's matter."""
        self.vectors[slots] = vectors
        self.squares[slots] = metrics.squares(vectors)
        self.alive[slots] = True

    def clear(self, slots: Places) -> None:
        """End the rows of `slots`; lists that name them are the caller's matter."""
        self.alive[slots] = False
        self.squares[slots] = INFINITE
        self.keys[slots] = EMPTY
        self.bound[slots] = INFINITE

    def measured(self, rows: Places, others: Places) -> Keys:
        """Return the keys (n,) of `others[i]` as neighbours of `rows[i]`."""
        return pack(self.distances(rows, others), others.astype(np.int32))

    def distances(self, rows: Places, others: Places) -> Floats:
        """Return the distance (n,) of each pair of slots, in blocks that stay in the cache."""
        found = np.empty(len(rows), np.float32)
        step = max(1, (1 << 18) // max(self.vectors.shape[1], 1))
        for start in range(0, len(rows), step):
            cut = slice(start, start + step)
            found[cut] = metrics.pairs(self.vectors[rows[cut]], self.vectors[others[cut]], self.metric)
        return found

    def fan(self, rows: Places, candidates: NDArray[np.int32]) -> Keys:
        """Return the keys (n, c) of candidates[i] as neighbours of rows[i].

        EMPTY where a candidate is -1, dead, named before in its line, or the row itself.
        """
        candidates = np.sort(candidates, axis=1)
        good = (candidates >= 0) & self.alive[candidates] & (candidates != rows[:, None])
        good[:, 1:] &= candidates[:, 1:] != candidates[:, :-1]
        line, place = np.nonzero(good)
        keys = np.full(candidates.shape, EMPTY)
        keys[line, place] = self.measured(rows[line], candidates[line, place].astype(np.int64))
        return keys

    def settle(self, rows: Places, keys: Keys) -> None:
        """Put merged `keys` into `rows` as fresh lists; the bound is their last distance if full."""
        self.keys[rows] = keys
        self.bound[rows] = distances_of(keys[:, -1])

    def blocks(self, rows: Places) -> list[Places]:
        """Return `rows` cut so that a distance block over all slots stays small."""
        step = max(1, _BLOCK_CELLS // max(len(self.alive), 1))
        return [rows[start : start + step] for start in range(0, len(rows), step)]

    def block(self, rows: Places) -> Floats:
        """Return pre-selecting distances (n, capacity) to all slots; of dead slots and itself infinite."""
        near = metrics.block(self.vectors[rows], self.vectors, self.squares, self.metric)
        if self.metric is Metric.INNER_PRODUCT:
            near[:, ~self.alive] = INFINITE
        near[np.arange(len(rows)), rows] = INFINITE
        return near

    def tolerance(self, rows: Places) -> Floats:
        """Return by how much (n,) `block` may be off for `rows`."""
        finite = self.squares[self.alive]
        return metrics.slack(self.squares[rows], float(finite.max(initial=0)), self.metric)
