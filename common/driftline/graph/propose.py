"""Who proposes candidates, and one who does: an HNSW index that is allowed to be stale.

Invariant: what is returned are candidates only; whoever asked measures them against the
rows as they are now. In an HNSW index a row changed or born since it was built is found by its old
place or not at all, so it is built anew beside the old one, a piece per tick, and
swapped in at a tick that depends on the number of changed rows alone: never on timing.
hnswlib must not add and query at once, and in-place updates lose recall. An index takes 545
bytes a row of 64 dimensions, while it is rebuilt twice that: `cells` takes 7.
Source: Malkov, Yashunin, "Efficient and robust approximate nearest neighbor search using
Hierarchical Navigable Small World graphs", TPAMI 2018.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from threading import Thread
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from driftline.errors import ConfigError
from driftline.graph.lists import Lists, Places
from driftline.graph.metric import Floats, Ids, Metric, block

_FRESH = 1 / 16
"""Share of the rows that may be unknown to the index: each costs a comparison per changed row."""


class ProposerName(StrEnum):
    """Who proposes candidates to G2."""

    CELLS = "cells"  # rows filed under centroids: never stale, small
    HNSW = "hnsw"  # hnswlib, rebuilt in the background


class Proposer(Protocol):
    """Proposes rows that may be near; a row of `Lists` is known by its slot."""

    builds: int  # how often what it goes by was begun from nothing

    def build(self) -> None: ...
    def moved(self, changed: Places, removed: Places) -> None: ...
    def born(self, slots: Places) -> None: ...
    def propose(self, rows: Places, width: int) -> NDArray[np.int32]: ...
    def search(self, rows: Places, width: int) -> NDArray[np.int32]: ...
    def advance(self, changed: int) -> bool: ...
    def close(self) -> None: ...
    @property
    def nbytes(self) -> int: ...


@dataclass(frozen=True, slots=True)
class IndexSettings:
    """HNSW's parameters; the defaults are those the figures in the docs were reached with."""

    links: int = 12  # M
    build_width: int = 60  # ef_construction
    search_width: int = 64  # ef
    first_width: int = 400  # ef while the first lists are made
    threads: int = 2  # of queries; insertion uses one, or the index would depend on timing
    turnover: float = 0.75  # rebuilt when this share of the rows has changed since the last build began
    pieces: int = 16  # ticks that a rebuild is spread over


class Hnsw(Protocol):
    """What is used of hnswlib.Index."""

    def init_index(self, max_elements: int, M: int, ef_construction: int, random_seed: int) -> None: ...  # noqa: N803
    def set_ef(self, ef: int) -> None: ...
    def set_num_threads(self, threads: int) -> None: ...
    def add_items(self, data: Floats, ids: Places, num_threads: int) -> None: ...
    def knn_query(self, data: Floats, k: int, num_threads: int) -> tuple[Ids, Floats]: ...
    def get_current_count(self) -> int: ...


class IndexFailedError(Exception):
    """hnswlib raised; the graph goes on exactly, without it."""


def available() -> bool:
    """Tell whether hnswlib can be imported."""
    try:
        import hnswlib  # noqa: F401
    except ImportError:
        return False
    return True


def new_index(dims: int, metric: Metric, capacity: int, settings: IndexSettings, seed: int) -> Hnsw:
    """Return an empty index. Raises ConfigError without hnswlib."""
    try:
        import hnswlib
    except ImportError:
        raise ConfigError(
            "method g2 needs hnswlib, which is not installed: pip install 'driftline[graph]',"
            " or use method exact"
        ) from None
    space = "ip" if metric is Metric.INNER_PRODUCT else "l2"  # rows are unit vectors under cosine
    index: Hnsw = hnswlib.Index(space, dims)
    index.init_index(max(capacity, 1), settings.links, settings.build_width, seed)
    index.set_num_threads(settings.threads)
    index.set_ef(settings.search_width)
    return index


class Hnswlib:
    """One index in use, and perhaps one under construction."""

    nbytes = 0  # hnswlib does not tell

    def __init__(self, lists: Lists, settings: IndexSettings, seed: int) -> None:
        self._lists = lists
        self._settings = settings
        self._seed = seed
        self._index: Hnsw | None = None
        self._next: Hnsw | None = None
        self._left: NDArray[np.int64] = np.empty(0, np.int64)
        self._piece = 0
        self._thread: Thread | None = None
        self._failure = ""
        self._changed = 0
        self._fresh: Places = np.empty(0, np.int64)  # born since the index was begun: it cannot know them
        self._fresher: Places = np.empty(0, np.int64)  # born since the next one was begun
        self.builds = 0

    def build(self) -> None:
        """Index every live row now. Raises IndexFailedError, ConfigError."""
        rows = np.flatnonzero(self._lists.alive)
        self._join()
        self._next, self._left, self._changed = None, rows[:0], 0
        self._fresh = self._fresher = rows[:0]
        index = self._new(len(rows))
        self._insert(index, rows, self._lists.vectors[rows])
        if self._failure:
            raise IndexFailedError(self._failure)
        self._index = index

    def propose(self, rows: Places, width: int) -> NDArray[np.int32]:
        """Return candidate slots (n, m) for `rows`. Raises IndexFailedError."""
        return self._query(rows, width, self._settings.search_width)

    def search(self, rows: Places, width: int) -> NDArray[np.int32]:
        """Return what `propose` does, looked for with more care. Raises IndexFailedError."""
        return self._query(rows, width, self._settings.first_width)

    def _query(self, rows: Places, width: int, search: int) -> NDArray[np.int32]:
        """Return candidate slots (n, <= width) for `rows`; some may be dead, none need be nearest.

        Raises IndexFailedError.
        """
        if self._index is None:
            raise IndexFailedError(self._failure)
        try:
            width = min(width, self._index.get_current_count())
            self._index.set_ef(max(search, width))
            labels, _ = self._index.knn_query(self._lists.vectors[rows], width, self._settings.threads)
        except RuntimeError as error:
            self._index, self._failure = None, f"hnswlib failed to search: {error}"
            raise IndexFailedError(self._failure) from error
        return np.concatenate([labels.astype(np.int32), self._newborn(rows, width)], axis=1)

    def moved(self, changed: Places, removed: Places) -> None:
        """Nothing: who moved is found by the old place until the next index is in."""

    def born(self, slots: Places) -> None:
        """Take note of slots that were given to new rows: they are compared one by one until indexed."""
        self._fresh = np.union1d(self._fresh, slots)
        self._fresher = np.union1d(self._fresher, slots)

    def advance(self, changed: int) -> bool:
        """Go one tick on with building; `changed` rows did. Return whether a new index was swapped in.

        Call it when all candidates of the tick are in: insertion runs beside whatever comes until the
        next call, on its own thread, of rows copied now. A failure shows at the next `propose`.
        """
        self._join()
        if self._index is None:
            return False
        self._changed += changed
        swapped = False
        if self._next is not None and not len(self._left):
            self._index, self._next, swapped = self._next, None, True
            self._fresh = self._fresher
        live = max(len(self._lists), 1)
        due = self._changed >= self._settings.turnover * live or len(self._fresh) > _FRESH * live
        if self._next is None and due:
            self.start()
        if self._next is not None and len(self._left):
            rows, self._left = self._left[: self._piece], self._left[self._piece :]
            rows = rows[self._lists.alive[rows]]
            vectors = self._lists.vectors[rows]
            self._thread = Thread(
                target=self._insert, args=(self._next, rows, vectors), name="driftline-hnsw"
            )
            self._thread.start()
        return swapped

    def start(self) -> None:
        """Begin to build a new index, unless one is under way."""
        if self._next is not None:
            return
        rows = np.flatnonzero(self._lists.alive)
        self._changed = 0
        self._fresher = rows[:0]
        self._next = self._new(len(rows))
        # In an order of its own: neighbours inserted together would make a worse index than strangers do.
        self._left = np.random.default_rng((self._seed, self.builds)).permutation(rows)
        self._piece = -(-len(rows) // self._settings.pieces)

    def close(self) -> None:
        """Wait for the thread, if one runs."""
        self._join()

    def _newborn(self, rows: Places, width: int) -> NDArray[np.int32]:
        fresh = self._fresh[self._lists.alive[self._fresh]]
        if not len(fresh):
            return np.empty((len(rows), 0), np.int32)
        lists = self._lists
        near = block(lists.vectors[rows], lists.vectors[fresh], lists.squares[fresh], lists.metric)
        take = min(width, len(fresh))
        return fresh[np.argpartition(near, take - 1, axis=1)[:, :take]].astype(np.int32)

    def _new(self, rows: int) -> Hnsw:
        self.builds += 1
        return new_index(
            self._lists.vectors.shape[1], self._lists.metric, rows, self._settings, self._seed + self.builds
        )

    def _insert(self, index: Hnsw, rows: Places, vectors: Floats) -> None:
        try:
            if len(rows):
                index.add_items(vectors, rows, 1)
        except Exception as error:  # noqa: BLE001 - raised again by whoever needs the index
            self._index, self._next = None, None
            self._failure = f"hnswlib failed to insert: {type(error).__name__}: {error}"

    def _join(self) -> None:
        if self._thread is not None:
            self._thread.join()
            self._thread = None
