"""Segments: the rows that one version changed in one shard.

Invariant: ordinals are strictly increasing, so a row's address is its ordinal's rank
and none is stored [EM10]; rows lie uncompressed at a fixed stride, so a mapped
segment is read like an array. An ordinal is either a row or a tombstone.

Ordinals, LSNs and tombstones of up to 65,536 rows are packed: then an ordinal takes less than a byte.

    lsn u64[n]  dead_lsn u64[m]  ord u32[n]  dead u32[m]  rows f32[n,d]  state f32[n,s]  sums

In a lossy tier `rows` are bytes of whole numbers, under `scale` f32[n]; `state` likewise under
`state_scale`, where that takes less room.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from driftline.frames.tensors import Array
from driftline.versions.cache import MappedObject, ObjectCache
from driftline.versions.pages import ObjectRef, Sealed, seal
from driftline.versions.tiers import EXACT, dequantise, quantise, shrinks

_COLUMNS = ("lsn", "rows", "state")
NOT_HERE = -1
COLUMNS = ("lsn", "rows", "state", "scale", "state_scale")  # what a row of a segment is made of
_NONE = np.zeros(1, np.int64)


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
    error: float = 0.0  # largest difference of a number of `rows` from what was written first
    state_error: float = 0.0
    merged: bool = False  # made of older segments: its rows were written by several versions


@dataclass(frozen=True, slots=True)
class SegmentData:
    """The content of a segment: ordinals strictly increasing."""

    ordinals: NDArray[np.uint32]  # (n,)
    lsn: NDArray[np.uint64]  # (n,)
    rows: NDArray[np.float32]  # (n, d)
    state: NDArray[np.float32]  # (n, s)
    dead: NDArray[np.uint32]  # (m,)
    dead_lsn: NDArray[np.uint64]  # (m,)


@dataclass(frozen=True, slots=True)
class Losses:
    """What the tier of a segment has cost."""

    tier: str = EXACT
    error: float = 0.0
    state_error: float = 0.0


def write_segment(key: str, table: str, part: int, txn: str, data: SegmentData) -> tuple[SegmentRef, Sealed]:
    """Return a segment and how a manifest lists it. It holds at least one row or tombstone."""
    tensors: dict[str, Array] = {
        "lsn": data.lsn,
        "dead_lsn": data.dead_lsn,
        "ord": data.ordinals,
        "dead": data.dead,
        "rows": data.rows,
        "state": data.state,
    }
    return seal_segment(key, {"table": table, "part": str(part), "txn": txn}, tensors, Losses())


def write_lossy(
    key: str, table: str, part: int, txn: str, data: SegmentData, before: Losses
) -> tuple[SegmentRef, Sealed]:
    """Return a segment of tier `before.tier` and how a manifest lists it.

    `before`: with the errors that `data` already has. Raises InputError for numbers that are not finite.
    """
    rows = quantise(data.rows, before.tier)
    tensors: dict[str, Array] = {
        "lsn": data.lsn,
        "dead_lsn": data.dead_lsn,
        "ord": data.ordinals,
        "dead": data.dead,
        "scale": rows.scale,
    }
    state_error = before.state_error
    if shrinks(data.state.shape[1], before.tier):
        state = quantise(data.state, before.tier)
        tensors |= {"state_scale": state.scale, "rows": rows.codes, "state": state.codes}
        state_error += state.error
    else:
        tensors |= {"state": data.state, "rows": rows.codes}
    losses = Losses(before.tier, before.error + rows.error, state_error)
    return seal_segment(key, {"table": table, "part": str(part), "txn": txn}, tensors, losses)


def seal_segment(
    key: str, about: Mapping[str, str], tensors: Mapping[str, Array], losses: Losses
) -> tuple[SegmentRef, Sealed]:
    """Return the segment of these tensors, wide numbers before narrow ones, and how a manifest lists it."""
    sealed = seal(key, {"type": "segment", **about, "tier": losses.tier}, tensors)
    both = (tensors["ord"], tensors["dead"])
    ends = [int(each) for some in both if len(some) for each in (some[0], some[-1])]
    entry = SegmentRef(
        sealed.ref,
        len(tensors["ord"]),
        len(tensors["dead"]),
        min(ends),
        max(ends),
        about["txn"],
        losses.tier,
        losses.error,
        losses.state_error,
    )
    return entry, sealed


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
        return self._values("rows", "scale", at)

    def state(self, at: NDArray[np.int64]) -> NDArray[np.float32]:
        """Return the optimizer state of these ranks, (n, s)."""
        return self._values("state", "state_scale", at)

    def columns(self) -> tuple[str, ...]:
        """Return what a row is made of as it is stored, for `stored`."""
        return tuple(name for name in COLUMNS if name in self._object.frame.tensors)

    def stored(self, name: str, at: NDArray[np.int64]) -> Array:
        """Return a column of the rows of these ranks as it is stored: codes where the tier is lossy."""
        return self._object.rows(name, at)

    def ahead(self, at: NDArray[np.int64]) -> None:
        """Have the system read the rows of these ranks, before `verify` waits for them."""
        self._object.ahead("rows", at)

    def verify(self, at: NDArray[np.int64]) -> None:
        """Verify the pages of the rows of these ranks."""
        # of most rows all: telling the pages of each takes longer than checking them
        most = 2 * len(at) >= self.entry.rows
        starts, ends = (_NONE, np.array([self.entry.rows])) if most else (at, at + 1)
        for name in _COLUMNS if self.entry.tier == EXACT else self.columns():
            self._object.need(name, starts, ends)

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
        if self.entry.tier != EXACT:
            lsn[:], rows[:], state[:] = self.lsns(at), self.rows(at), self.state(at)
            return
        if self._columns is None:
            lsn_of, rows_of, state_of = map(self._object.column, _COLUMNS)
            self._columns = lsn_of, rows_of, state_of
        of_lsn, of_rows, of_state = self._columns
        of_lsn.take(at, 0, lsn, "clip")  # with "raise" numpy would buffer
        of_rows.take(at, 0, rows, "clip")
        of_state.take(at, 0, state, "clip")

    def _values(self, name: str, scale: str, at: NDArray[np.int64]) -> NDArray[np.float32]:
        values = self._object.rows(name, at)
        if scale not in self._object.frame.tensors:
            return values
        return dequantise(values, self._object.rows(scale, at), self.entry.tier)


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
