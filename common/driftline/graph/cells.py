"""Candidates from cells: rows filed under the nearest of some centroids, always where they are now.

Invariant: every live row is in exactly one cell, that of its vector after the last `moved`; what
is proposed are the nearest rows of the cells nearest to the one who asks. There is no index to go
stale, to be built beside another or to be locked: a row that moved is filed anew for the price of
one comparison with each centroid, and the files are 7 bytes a row where an HNSW index is some 545.
Centroids are learned anew when rows have moved `turnover` times over.
Sources: Sivic, Zisserman, "Video Google", ICCV 2003 (inverted file); for the inner product Bachrach
et al., "Speeding up the Xbox recommender system using a Euclidean transformation for inner-product
spaces", RecSys 2014: one more coordinate makes the largest product the least distance.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from driftline.errors import InputError
from driftline.graph.lists import Lists, Places
from driftline.graph.metric import Floats, Metric, squares

_NOWHERE = np.uint16(0xFFFF)
_AT_ONCE = 2_048  # rows filed at a time
_ASKED = 1 << 18  # candidates compared at a time: 4 MiB
_BLOCK = 1 << 19  # distances at a time: 2 MiB
_ONE_THREAD = 1 << 18  # multiplications that OpenBLAS does on one thread


@dataclass(frozen=True, slots=True)
class CellSettings:
    """How rows are filed; the defaults are those the figures in the docs were reached with."""

    probes: int = 8  # cells looked into per changed row
    first_probes: int = 24  # and while the first lists are made
    rows_per_cell: float = 1.0  # in multiples of the square root of the number of rows
    rounds: int = 8  # of k-means
    sample: int = 64  # rows per centroid that k-means sees
    turnover: float = 4.0  # centroids are learned anew when rows have changed so many times over

    def __post_init__(self) -> None:
        if self.probes < 1 or self.rounds < 0 or self.sample < 1:
            raise InputError(f"{self}: probes and sample are at least 1, rounds at least 0")
        if not (self.rows_per_cell > 0 and self.turnover > 0):
            raise InputError(f"{self}: rows_per_cell and turnover are above 0")


class Cells:
    """The files."""

    def __init__(self, lists: Lists, settings: CellSettings, seed: int) -> None:
        self._lists = lists
        self._settings = settings
        self._seed = seed
        self._centroids: Floats = np.empty((0, 0), np.float32)  # (c, d), d + 1 under the inner product
        self._longest = np.float32(0)  # squared norm, for the further coordinate
        self._cell: NDArray[np.uint16] = np.empty(0, np.uint16)  # by slot
        self._filed: NDArray[np.int32] = np.empty(0, np.int32)  # live slots, cell by cell
        self._starts: NDArray[np.int64] = np.zeros(1, np.int64)
        self._changed = 0
        self.builds = 0

    @property
    def nbytes(self) -> int:
        """Bytes of all arrays."""
        return self._centroids.nbytes + self._cell.nbytes + self._filed.nbytes + self._starts.nbytes

    def build(self) -> None:
        """Learn centroids, file every live row."""
        lists, settings = self._lists, self._settings
        rows = np.flatnonzero(lists.alive)
        count = max(1, min(round(len(rows) ** 0.5 / settings.rows_per_cell), int(_NOWHERE), len(rows)))
        rng = np.random.default_rng((self._seed, self.builds))
        self.builds += 1
        self._changed = 0
        self._longest = np.float32(lists.squares[rows].max(initial=0))
        drawn = np.sort(rng.choice(rows, min(len(rows), settings.sample * count), replace=False))
        self._centroids = _means(self._lifted(drawn), count, settings.rounds, rng)
        self._cell = np.full(len(lists.alive), _NOWHERE)
        self._file(rows)
        self._sort()

    def moved(self, changed: Places, removed: Places) -> None:
        """File `changed` anew and take `removed` out."""
        lists = self._lists
        self._changed += len(changed)
        if self._changed > self._settings.turnover * max(len(lists), 1):
            self.build()
            return
        more = len(lists.alive) - len(self._cell)
        self._cell = np.concatenate([self._cell, np.full(more, _NOWHERE)]) if more else self._cell
        self._cell[removed] = _NOWHERE
        self._file(changed)
        self._sort()

    def born(self, slots: Places) -> None:
        """Nothing: `moved` has filed them."""

    def advance(self, changed: int) -> bool:
        """Nothing: it never falls behind."""
        return False

    def close(self) -> None:
        """Nothing to let go of."""

    def propose(self, rows: Places, width: int) -> NDArray[np.int32]:
        """Return candidate slots (n, width) for `rows`, -1 where there are no more; itself among them."""
        return self._query(rows, width, self._settings.probes)

    def search(self, rows: Places, width: int) -> NDArray[np.int32]:
        """Return what `propose` does, looked for in more cells."""
        return self._query(rows, width, self._settings.first_probes)

    def _query(self, rows: Places, width: int, probes: int) -> NDArray[np.int32]:
        step = max(64, _ASKED // (probes * width))
        out = [
            self._propose(rows[start : start + step], width, probes) for start in range(0, len(rows), step)
        ]
        return np.concatenate([np.empty((0, width), np.int32), *out])

    def _propose(self, rows: Places, width: int, probes: int) -> NDArray[np.int32]:
        lists = self._lists
        probes = min(probes, len(self._centroids))
        near = self._to_centroids(lists.vectors[rows])
        asked = np.argpartition(near, probes - 1, axis=1)[:, :probes].ravel()
        order = np.argsort(asked.astype(np.uint16), kind="stable")
        found = np.full((len(rows) * probes, width), -1, np.int32)
        gaps = np.full((len(rows) * probes, width), np.inf, np.float32)
        cells, begins = np.unique(asked[order], return_index=True)
        for cell, begin, end in zip(cells, begins, [*begins[1:], len(order)], strict=True):
            members = self._filed[self._starts[cell] : self._starts[cell + 1]]
            if not len(members):
                continue
            there, lengths = lists.vectors[members], lists.squares[members]
            take, step = min(width, len(members)), max(1, _BLOCK // len(members))
            for start in range(begin, end, step):
                lines = order[start : min(start + step, end)]
                gap = _products(lists.vectors[rows[lines // probes]], there)
                if lists.metric is Metric.INNER_PRODUCT:
                    np.negative(gap, out=gap)
                else:  # the asking row's own square is the same for all
                    gap *= -2
                    gap += lengths
                if take < len(members):
                    best = np.argpartition(gap, take - 1, axis=1)[:, :take]
                    found[lines, :take], gaps[lines, :take] = members[best], np.take_along_axis(gap, best, 1)
                else:
                    found[lines, :take], gaps[lines, :take] = members, gap
        found, gaps = found.reshape(len(rows), -1), gaps.reshape(len(rows), -1)
        best = np.argpartition(gaps, width - 1, axis=1)[:, :width]
        return np.take_along_axis(found, best, axis=1)

    def _file(self, rows: Places) -> None:
        for start in range(0, len(rows), _AT_ONCE):
            part = rows[start : start + _AT_ONCE]
            near = self._to_centroids(self._lifted(part))
            self._cell[part] = near.argmin(axis=1)

    def _sort(self) -> None:
        cells = len(self._centroids)
        counts = np.bincount(self._cell, minlength=cells)[:cells]
        self._starts = np.concatenate([[0], np.cumsum(counts)])
        # A stable sort of 16-bit integers is a radix sort.
        self._filed = np.argsort(self._cell, kind="stable")[: self._starts[-1]].astype(np.int32)

    def _lifted(self, rows: Places) -> Floats:
        """Return the rows as they are filed: under the inner product all of one length."""
        vectors = self._lists.vectors[rows]
        if self._lists.metric is not Metric.INNER_PRODUCT:
            return vectors
        rest = np.sqrt(np.maximum(self._longest - self._lists.squares[rows], 0))
        return np.concatenate([vectors, rest[:, None]], axis=1)

    def _to_centroids(self, vectors: Floats) -> Floats:
        centroids = self._centroids[:, : vectors.shape[1]]  # who asks has 0 in the further coordinate
        return np.asarray(squares(self._centroids) - 2 * _products(vectors, centroids), np.float32)


def _products(x: Floats, y: Floats) -> Floats:
    """Return x · y of all pairs (n, m), in pieces that BLAS does not share out among threads.

    Handing so little to a second thread costs more than it saves, on a busy machine ten times more.
    """
    out = np.empty((len(x), len(y)), np.float32)
    step = max(1, _ONE_THREAD // max(1, y.size))
    with np.errstate(invalid="ignore"):  # some kernels of OpenBLAS raise it over lanes they do not use
        for start in range(0, len(x), step):
            np.matmul(x[start : start + step], y.T, out=out[start : start + step])
    return out


def _means(rows: Floats, count: int, rounds: int, rng: np.random.Generator) -> Floats:
    """Return `count` centroids (k-means by Lloyd, from rows drawn at random)."""
    if not len(rows):
        return np.zeros((1, rows.shape[1]), np.float32)
    centroids = rows[rng.choice(len(rows), count, replace=False)]
    for _ in range(rounds):
        lengths = squares(centroids)
        of = np.concatenate(
            [
                (lengths - 2 * _products(rows[start : start + _AT_ONCE], centroids)).argmin(axis=1)
                for start in range(0, len(rows), _AT_ONCE)
            ]
        )
        order = np.argsort(of, kind="stable")
        counts = np.bincount(of, minlength=count)
        filled = np.flatnonzero(counts)
        begins = (np.cumsum(counts) - counts)[filled]
        centroids = centroids.copy()
        centroids[filled] = np.add.reduceat(rows[order], begins, axis=0) / counts[filled][:, None]
    return centroids
