"""Reading one shard of one version: id to ordinal to segment to row.

Invariant: a row is found in the newest segment that names its ordinal, or nowhere if
that one holds a tombstone. Only the pages that are touched are fetched and verified.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from driftline.errors import DamagedObjectError
from driftline.versions.cache import ObjectCache
from driftline.versions.dictionary import IdDictionary
from driftline.versions.manifest import PartManifest
from driftline.versions.owners import NOBODY, OwnerMap
from driftline.versions.segments import Segment

ABSENT = -1
_INDEX_LIMIT = 8 << 20  # ordinals: beyond it a full index (6 bytes each) is not kept


@dataclass(frozen=True, slots=True)
class Rows:
    """Rows of one shard."""

    ids: NDArray[np.uint64]  # (n,)
    ordinals: NDArray[np.uint32]  # (n,)
    lsn: NDArray[np.uint64]  # (n,)
    rows: NDArray[np.float32]  # (n, d)
    state: NDArray[np.float32]  # (n, s)

    def __len__(self) -> int:
        return len(self.ids)


@dataclass(frozen=True, slots=True)
class Located:
    """Where rows are: the segment's place in the manifest's list, and the rank in it."""

    segment: NDArray[np.int32]  # (n,), ABSENT where there is no row
    rank: NDArray[np.int64]  # (n,)

    @property
    def found(self) -> NDArray[np.bool_]:
        """Which rows exist."""
        return np.asarray(self.segment >= 0)


class PartReader:
    """One shard of one version. Thread-safe for reading."""

    def __init__(self, cache: ObjectCache, part: PartManifest, dim: int, state_size: int) -> None:
        self.part, self.dim, self.state_size = part, dim, state_size
        self._cache = cache
        self.dictionary = IdDictionary(cache, part.dictionary)
        self._opened: dict[int, Segment] = {}
        self._owners: OwnerMap | None = None
        self._owner_places: NDArray[np.int32] | None = None
        self._codes: NDArray[np.uint16] | None = None
        self._ranks: NDArray[np.uint32] | None = None
        self._verified = np.zeros(self.ordinals, np.bool_)  # by ordinal: the pages of its row were
        self._whole = np.zeros(len(part.segments), np.bool_)  # by segment: all of its pages were
        self._looked = 0

    @property
    def ordinals(self) -> int:
        """One more than the greatest ordinal that any segment names."""
        covered = self.part.owners.ordinals if self.part.owners is not None else 0
        return max([covered, *(each.last + 1 for each in self.part.segments)])

    def segment(self, place: int) -> Segment:
        """Return a segment by its place in the manifest's list."""
        found = self._opened.get(place)
        if found is None:
            found = self._opened[place] = Segment(self._cache, self.part.segments[place])
        return found

    def locate(self, ordinals: NDArray[np.int64]) -> Located:
        """Return where the rows of some ordinals are; a negative ordinal is nowhere."""
        self._looked += 1
        if self._ranks is None and self._looked > 1 and self.ordinals <= _INDEX_LIMIT:
            self._build_index()
        if self._codes is not None and self._ranks is not None:
            return self._by_index(ordinals, self._codes, self._ranks)
        segment = np.full(len(ordinals), ABSENT, np.int32)
        rank = np.full(len(ordinals), ABSENT, np.int64)
        left = np.flatnonzero(ordinals >= 0)
        anchored = self.part.owners.covers if self.part.owners is not None else 0
        for place in range(len(self.part.segments) - 1, anchored - 1, -1):
            if not len(left):
                break
            entry = self.part.segments[place]
            here = left[(ordinals[left] >= entry.first) & (ordinals[left] <= entry.last)]
            if not len(here):
                continue
            ranks = self.segment(place).find(ordinals[here])
            hit = ranks >= 0
            segment[here[hit]], rank[here[hit]] = place, ranks[hit]
            gone = self.segment(place).kills(ordinals[here]) if entry.dead else np.zeros(len(here), np.bool_)
            left = np.setdiff1d(left, here[hit | gone], assume_unique=True)
        if len(left) and self.part.owners is not None:
            segment[left] = self._owner_of(ordinals[left])
            for place in np.unique(segment[left]).tolist():
                if place >= 0:
                    here = left[segment[left] == place]
                    rank[here] = self._ranked(place, ordinals[here])
        return Located(segment, rank)

    def codes(self) -> NDArray[np.uint16]:
        """Return for each ordinal 1 + the place of the segment that holds its row, 0 for none."""
        if self._codes is not None:
            return self._codes
        codes = np.zeros(self.ordinals, np.uint16)
        anchored = 0
        if self.part.owners is not None:
            owners, places = self._owner_map()
            codes[: self.part.owners.ordinals] = (places + 1).astype(np.uint16)[owners.all()]
            anchored = self.part.owners.covers
        for place in range(anchored, len(self.part.segments)):
            codes[self.segment(place).dead] = NOBODY
            codes[self.segment(place).ordinals] = place + 1
        return codes

    def take(self, ids: NDArray[np.uint64], ordinals: NDArray[np.int64], at: Located) -> Rows:
        """Return rows in the order asked for; zeros where there is none."""
        count = len(ids)
        lsn = np.zeros(count, np.uint64)
        rows = np.zeros((count, self.dim), np.float32)
        state = np.zeros((count, self.state_size), np.float32)
        order = np.argsort(at.segment, kind="stable")
        segments, ranks = at.segment[order], at.rank[order]
        there = order[np.searchsorted(segments, 0) :]
        # one look for all rows, where a look into each of some fifty segments takes longer than their rows
        seen = self._whole[at.segment[there]] | self._verified[ordinals[there]]
        fresh = set() if seen.all() else set(at.segment[there][~seen].tolist())
        starts = np.flatnonzero(np.diff(segments, prepend=ABSENT - 1))
        ends = [*starts[1:].tolist(), count]
        for place, start, end in zip(segments[starts].tolist(), starts.tolist(), ends, strict=True):
            if place < 0:
                continue
            segment, some = self.segment(place), ranks[start:end]
            if place in fresh:
                segment.verify(some)
                self._whole[place] = segment.whole
            segment.copy(some, lsn[start:end], rows[start:end], state[start:end])
        self._verified[ordinals[there]] = True
        back = np.empty_like(order)
        back[order] = np.arange(count)
        found = np.where(at.found, ordinals, 0).astype(np.uint32)
        return Rows(ids, found, lsn[back], rows[back], state[back])

    def blocks(self, rows: int = 65_536) -> Iterator[Rows]:
        """Yield all live rows, at most `rows` at a time, in no order of ids.

        Takes 10 bytes of memory per ordinal besides the block.
        """
        codes, ids = self.codes(), self.dictionary.ids(self.ordinals)
        for place in range(len(self.part.segments) - 1, -1, -1):
            segment = self.segment(place)
            ordinals = segment.ordinals
            ranks = np.flatnonzero(codes[ordinals] == place + 1)
            for start in range(0, len(ranks), rows):
                some = ranks[start : start + rows]
                here = ordinals[some]
                yield Rows(ids[here], here, segment.lsns(some), segment.rows(some), segment.state(some))

    def _build_index(self) -> None:
        codes = self.codes()
        ranks = np.zeros(len(codes), np.uint32)
        for place in range(len(self.part.segments)):
            ordinals = self.segment(place).ordinals
            mine = codes[ordinals] == place + 1
            ranks[ordinals[mine]] = np.flatnonzero(mine)
        self._codes, self._ranks = codes, ranks

    def _by_index(
        self, ordinals: NDArray[np.int64], codes: NDArray[np.uint16], ranks: NDArray[np.uint32]
    ) -> Located:
        inside = (ordinals >= 0) & (ordinals < len(codes))
        at = np.where(inside, ordinals, 0)
        if not len(codes):
            return Located(np.full(len(at), ABSENT, np.int32), np.full(len(at), ABSENT, np.int64))
        segment = np.where(inside, codes[at].astype(np.int32) - 1, ABSENT).astype(np.int32)
        return Located(segment, np.where(segment >= 0, ranks[at].astype(np.int64), ABSENT))

    def _owner_map(self) -> tuple[OwnerMap, NDArray[np.int32]]:
        """Return the owner map, and by code the place of its segment in the manifest's list."""
        entry = self.part.owners
        assert entry is not None, "called where there is one"
        if self._owners is None or self._owner_places is None:
            owners = OwnerMap(self._cache, entry)
            listed = {each.ref.key: place for place, each in enumerate(self.part.segments[: entry.covers])}
            missing = [key for key in owners.segments if key not in listed]
            if missing:
                raise DamagedObjectError(
                    entry.ref.key, "its list of segments", "those of the manifest", missing[0]
                )
            self._owner_places = np.array([ABSENT, *(listed[key] for key in owners.segments)], np.int32)
            self._owners = owners
        return self._owners, self._owner_places

    def _owner_of(self, ordinals: NDArray[np.int64]) -> NDArray[np.int32]:
        owners, places = self._owner_map()
        return np.asarray(places[owners.codes(ordinals)])

    def _ranked(self, place: int, ordinals: NDArray[np.int64]) -> NDArray[np.int64]:
        ranks = self.segment(place).find(ordinals)
        if len(ranks) and int(ranks.min()) < 0:
            assert self.part.owners is not None
            ordinal = int(ordinals[np.argmin(ranks)])
            raise DamagedObjectError(
                self.part.owners.ref.key,
                f"the code of ordinal {ordinal}",
                "a segment that holds it",
                self.part.segments[place].ref.key,
            )
        return ranks
