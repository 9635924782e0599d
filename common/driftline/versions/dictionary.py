"""The dictionary: which ordinal names which id.

Invariant: append-only. A version lists the chunks of its own line, so a branch forks
the dictionary by listing what its parent lists. An id that was deleted and born again
has several ordinals; the greatest is its latest life, and any earlier one has ended.

Chunks are sorted by id. A new chunk swallows its neighbours while they are less than
twice its size, so there are about log2(rows) of them and each id is written about as
often; within a chunk only the greatest ordinal of an id is kept.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from driftline.versions.cache import ObjectCache
from driftline.versions.pages import ObjectRef, Sealed, seal

UNKNOWN = -1


@dataclass(frozen=True, slots=True)
class ChunkRef:
    """A chunk of a dictionary as a manifest lists it."""

    ref: ObjectRef
    rows: int
    last: int  # greatest ordinal


def write_chunk(
    key: str, table: str, part: int, ids: NDArray[np.uint64], ordinals: NDArray[np.uint32]
) -> tuple[ChunkRef, Sealed]:
    """Return a chunk that names each of `ids` (distinct, any order, at least one) by its ordinal."""
    order = np.argsort(ids)
    metadata = {"type": "dictionary", "table": table, "part": str(part)}
    sealed = seal(key, metadata, {"ids": ids[order], "ord": ordinals[order]})
    return ChunkRef(sealed.ref, len(ids), int(ordinals.max())), sealed


def to_merge(chunks: Sequence[ChunkRef], rows: int) -> int:
    """Return how many of the last `chunks` a new one of `rows` ids swallows."""
    count = 0
    for chunk in reversed(chunks):
        if chunk.rows >= 2 * rows:
            break
        rows += chunk.rows
        count += 1
    return count


class IdDictionary:
    """The chunks of one shard at one version, oldest first."""

    def __init__(self, cache: ObjectCache, chunks: Sequence[ChunkRef]) -> None:
        self._cache, self._chunks = cache, chunks

    def find(self, ids: NDArray[np.uint64]) -> NDArray[np.int64]:
        """Return the latest ordinal of each id, UNKNOWN where it never had one."""
        found = np.full(len(ids), UNKNOWN, np.int64)
        order = np.argsort(ids)  # sorted look-ups walk a chunk once
        left = order
        for chunk in reversed(self._chunks):
            if not len(left):
                break
            known, ordinals = self.chunk(chunk)
            places = np.searchsorted(known, ids[left])
            places[places == len(known)] = 0
            hit = known[places] == ids[left]
            found[left[hit]] = ordinals[places[hit]]
            left = left[~hit]
        return found

    def ids(self, upto: int) -> NDArray[np.uint64]:
        """Return the id of each ordinal below `upto`; 0 where it never named anything that was stored."""
        by_ordinal = np.zeros(upto, np.uint64)
        for chunk in self._chunks:
            ids, ordinals = self.chunk(chunk)
            by_ordinal[ordinals] = ids
        return by_ordinal

    def chunk(self, chunk: ChunkRef) -> tuple[NDArray[np.uint64], NDArray[np.uint32]]:
        """Return the ids of a chunk, increasing, and their ordinals."""
        mapped = self._cache.open(chunk.ref)
        return mapped.tensor("ids"), mapped.tensor("ord")
