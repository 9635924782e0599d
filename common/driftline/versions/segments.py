"""Segments: the rows that one version changed in one shard.

Invariant: ordinals are strictly increasing, so a row's address is its ordinal's rank
and none is stored [EM10]; rows lie uncompressed at a fixed stride, so a mapped
segment is read like an array. An ordinal is either a row or a tombstone.

    lsn u64[n]  dead_lsn u64[m]  ord u32[n]  dead u32[m]  rows f32[n,d]  state f32[n,s]  sums
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from driftline.frames.tensors import Array
from driftline.versions.cache import MappedObject, ObjectCache
from driftline.versions.pages import ObjectRef, Sealed, seal

EXACT = "exact"
_COLUMNS = ("lsn", "rows", "state")
NOT_HERE = -1


@dataclass(frozen=True, slots=True)
class SegmentRef:
    """A segment as a manifest lists it."""

    ref: ObjectRef
    rows: int
    dead: int  # tombstones
    first: int  # least ordinal of rows and tombstones
    last: int  # greatest
    version: str  # that wrote it; its txn until it has a name
    tier: str = EXACT


@dataclass(frozen=True, slots=True)
class SegmentData:
    """The content of a segment: ordinals strictly increasing."""

    ordinals: NDArray[np.uint32]  # (n,)
    lsn: NDArray[np.uint64]  # (n,)
    rows: NDArray[np.float32]  # (n, d)
    state: NDArray[np.float32]  # (n, s)
    dead: NDArray[np.uint32]  # (m,)
    dead_lsn: NDArray[np.uint64]  # (m,)


def write_segment(key: str, table: str, part: int, txn: str, data: SegmentData) -> tuple[SegmentRef, Sealed]:
    """Return a segment and how a manifest lists it. It holds at least one row or tombstone."""
    metadata = {"type": "segment", "table": table, "part": str(part), "txn": txn, "tier": EXACT}
    sealed = seal(
        key,
        metadata,
        {
            "lsn": data.lsn,
            "dead_lsn": data.dead_lsn,
            "ord": data.ordinals,
            "dead": data.dead,
            "rows": data.rows,
            "state": data.state,
        },
    )
    ends = [int(each) for some in (data.ordinals, data.dead) if len(some) for each in (some[0], some[-1])]
    return (
        SegmentRef(sealed.ref, len(data.ordinals), len(data.dead), min(ends), max(ends), txn),
        sealed,
    )


class Segment:
    """A segment in mapped memory."""

    def __init__(self, cache: ObjectCache, entry: SegmentRef) -> None:
        self.entry = entry
        self._object: MappedObject = cache.open(entry.ref)
        self._columns: tuple[Array, Array, Array] | None = None

    @property
    def ordinals(self) -> NDArray[np.uint32]:
        """Ordinals of the rows, strictly increasing."""
        return self._object.tensor("ord")

    @property
    def dead(self) -> NDArray[np.uint32]:
        """Ordinals of the tombstones, strictly increasing."""
        return self._object.tensor("dead")

    @property
    def dead_lsn(self) -> NDArray[np.uint64]:
        """LSN of each tombstone."""
        return self._object.tensor("dead_lsn")

    def find(self, ordinals: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the rank of each ordinal among the rows, NOT_HERE where it is not among them."""
        return ranks(self.ordinals, ordinals)

    def kills(self, ordinals: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Return which ordinals have a tombstone here."""
        return np.asarray(ranks(self.dead, ordinals) >= 0)

    def lsns(self, at: NDArray[np.int64]) -> NDArray[np.uint64]:
        """Return the LSNs of the rows of these ranks."""
        return self._object.rows("lsn", at)

    def rows(self, at: NDArray[np.int64]) -> NDArray[np.float32]:
        """Return the rows of these ranks, (n, d)."""
        return self._object.rows("rows", at)

    def state(self, at: NDArray[np.int64]) -> NDArray[np.float32]:
        """Return the optimizer state of these ranks, (n, s)."""
        return self._object.rows("state", at)

    def verify(self, at: NDArray[np.int64]) -> None:
        """Verify the pages of the rows of these ranks."""
        for name in _COLUMNS:
            self._object.need(name, at, at + 1)

    @property
    def whole(self) -> bool:
        """Whether every page has been verified."""
        return self._object.all_seen

    def copy(
        self,
        at: NDArray[np.int64],
        lsn: NDArray[np.uint64],
        rows: NDArray[np.float32],
        state: NDArray[np.float32],
    ) -> None:
        """Write the LSNs, rows and states of these ranks, all verified, into contiguous arrays."""
        if self._columns is None:
            tensors = self._object.frame.tensors
            self._columns = tensors["lsn"], tensors["rows"], tensors["state"]
        of_lsn, of_rows, of_state = self._columns
        of_lsn.take(at, 0, lsn, "clip")  # with "raise" numpy would buffer
        of_rows.take(at, 0, rows, "clip")
        of_state.take(at, 0, state, "clip")

    @property
    def width(self) -> tuple[int, int]:
        """Numbers of float32 of a row and of its state."""
        tensors = self._object.frame.tensors
        return tensors["rows"].shape[1], tensors["state"].shape[1]


def ranks(among: NDArray[np.uint32], ordinals: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the place of each ordinal in the sorted `among`, NOT_HERE where it has none."""
    if not len(among):
        return np.full(len(ordinals), NOT_HERE, np.int64)
    # of the same dtype as what is searched, or numpy converts all of it
    wanted = ordinals.astype(np.uint32)
    places = np.searchsorted(among, wanted)
    places[places == len(among)] = 0
    hit = (among[places] == wanted) & (ordinals >= 0)
    return np.where(hit, places, NOT_HERE)
