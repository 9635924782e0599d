"""One shard of several versions, stored otherwise: which segments are worth it, and how.

Invariant: each version shows the same rows as before, bit for bit, but for those that only
versions of a lossy class need. A row that several versions share is written once, and stays
shared. What is rewritten is chosen over all versions together: a segment that one of them has
left nearly empty may be full of rows for another.

Rows of the chosen segments are sorted into layers: the newest row of each ordinal into the
first, the one before into the second, and so on. So what the newest versions read lies together.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from driftline.errors import DamagedObjectError
from driftline.frames.tensors import Array
from driftline.versions.cache import ObjectCache
from driftline.versions.manifest import PartManifest
from driftline.versions.owners import write_owner_map
from driftline.versions.parts import PartReader
from driftline.versions.partspec import PartSpec, Sink
from driftline.versions.segments import (
    Losses,
    Segment,
    SegmentData,
    SegmentRef,
    seal_segment,
    write_lossy,
)
from driftline.versions.tiers import EXACT, TIERS, level

_NOBODY = -1
_SMALL = 2  # a segment below 1/2 of the full size is worth merging for being small


@dataclass(frozen=True, slots=True)
class Limits:
    """When a segment is rewritten."""

    live: float = 0.5  # less than this of its rows is needed as it is stored
    segments: int = 64  # a version reads more small segments than this: those of fewest live rows


@dataclass(frozen=True, slots=True)
class Piece:
    """A segment to be written; rows by ordinal."""

    tier: str
    copied: bool  # from segments of the same tier: column by column, unchanged
    sources: NDArray[np.int32]  # (n,) number of the segment each row is in
    ranks: NDArray[np.int64]  # (n,) and its place there
    ordinals: NDArray[np.uint32]  # (n,)


@dataclass(frozen=True, slots=True)
class Rewrite:
    """What is to be done with one shard of all versions."""

    segments: tuple[Segment, ...]  # all that any version lists, older before newer
    chosen: tuple[int, ...]  # those that are rewritten
    pieces: tuple[Piece, ...]
    places: dict[int, NDArray[np.int32]]  # chosen segment -> piece of each of its rows, or _NOBODY

    @property
    def rows(self) -> int:
        """Rows that are written anew."""
        return sum(len(each.ordinals) for each in self.pieces)

    @property
    def bytes(self) -> int:
        """Bytes of the segments that are rewritten."""
        return sum(self.segments[number].entry.ref.size for number in self.chosen)


@dataclass(frozen=True, slots=True)
class Shown:
    """One shard of one version, and the tier its rows may be in."""

    part: PartManifest
    tier: str = EXACT


def plan_rewrite(spec: PartSpec, shown: Sequence[Shown], limits: Limits, cache: ObjectCache) -> Rewrite:
    """Return what is worth rewriting in a shard; `shown`: of every version, the oldest first."""
    segments: dict[str, Segment] = {}
    for each in shown:
        for entry in each.part.segments:
            if entry.ref.key not in segments:
                segments[entry.ref.key] = Segment(cache, entry)
    numbers = {key: number for number, key in enumerate(segments)}
    listed = tuple(segments.values())
    needed = [np.full(each.entry.rows, _NOBODY, np.int8) for each in listed]
    lists: set[tuple[int, ...]] = set()
    for part, rank in _distinct(shown):
        codes = PartReader(cache, part, spec.dim, spec.state_size).codes()
        mine = tuple(numbers[each.ref.key] for each in part.segments)
        lists.add(mine)
        for place, number in enumerate(mine):
            here = codes[listed[number].ordinals] == place + 1
            np.maximum(needed[number], rank, out=needed[number], where=here)
    chosen = _chosen([each.entry for each in listed], needed, lists, limits, spec.segment_bytes)
    pieces, places = _pieces(spec, listed, needed, chosen)
    return Rewrite(listed, tuple(chosen), tuple(pieces), places)


def rewrite(
    spec: PartSpec, shown: Sequence[Shown], plan: Rewrite, cache: ObjectCache, sink: Sink
) -> list[PartManifest]:
    """Return the shard of each version as it is stored from now on; new objects have gone to `sink`.

    Raises DamagedObjectError if a version would not show as many rows as before.
    """
    written = [_written(spec, plan, piece, sink) for piece in plan.pieces]
    numbers = {each.entry.ref.key: number for number, each in enumerate(plan.segments)}
    done: dict[object, PartManifest] = {}
    result = []
    for each in shown:
        part = each.part
        chosen = [at for at, entry in enumerate(part.segments) if numbers[entry.ref.key] in plan.places]
        if not chosen:
            result.append(part)
            continue
        ahead = max(chosen[-1] + 1, part.owners.covers if part.owners is not None else 0)
        front = replace(part, segments=part.segments[:ahead])
        key = (each.tier, part.owners, tuple(entry.ref.key for entry in front.segments))
        if key not in done:
            done[key] = _remapped(spec, Shown(front, each.tier), plan, numbers, written, cache, sink)
        new = replace(
            part,
            segments=(*done[key].segments, *part.segments[ahead:]),
            owners=done[key].owners,
        )
        live = int(np.count_nonzero(PartReader(cache, new, spec.dim, spec.state_size).codes()))
        if live != part.rows:
            where = f"{spec.table}:{spec.part}, rewritten"
            raise DamagedObjectError(part.segments[chosen[0]].ref.key, where, f"{part.rows} rows", f"{live}")
        result.append(new)
    return result


def _distinct(shown: Sequence[Shown]) -> Iterator[tuple[PartManifest, np.int8]]:
    """Yield the parts that differ, each with the rank of the most exact tier it is needed in."""
    found: dict[object, tuple[PartManifest, int]] = {}
    for each in shown:
        key = (each.part.owners, tuple(entry.ref.key for entry in each.part.segments))
        rank = max(level(each.tier), found[key][1] if key in found else 0)
        found[key] = (each.part, rank)
    for part, rank in found.values():
        yield part, np.int8(rank)


def _chosen(
    entries: Sequence[SegmentRef],
    needed: Sequence[NDArray[np.int8]],
    lists: set[tuple[int, ...]],
    limits: Limits,
    full: int,
) -> list[int]:
    live = [int(np.count_nonzero(each > _NOBODY)) for each in needed]
    chosen = {
        number
        for number, entry in enumerate(entries)
        if entry.rows and np.count_nonzero(needed[number] >= level(entry.tier)) < limits.live * entry.rows
    }
    for mine in sorted(lists):
        small = [
            each
            for each in dict.fromkeys(mine)
            if each not in chosen and live[each] and entries[each].ref.size < full // _SMALL
        ]
        # those that were merged before lie in layers: alone they are no reason to do it again
        fresh = sum(not entries[each].merged for each in small)
        if len(small) > limits.segments and fresh > limits.segments // 2:
            small.sort(key=lambda each: (live[each], each))
            chosen |= set(small[: len(small) - limits.segments // 2])
    return sorted(chosen)


def _pieces(
    spec: PartSpec, listed: Sequence[Segment], needed: Sequence[NDArray[np.int8]], chosen: Sequence[int]
) -> tuple[list[Piece], dict[int, NDArray[np.int32]]]:
    places = {number: np.full(listed[number].entry.rows, _NOBODY, np.int32) for number in chosen}
    by_tiers: dict[tuple[int, int], list[tuple[int, NDArray[np.int64]]]] = {}
    for number in chosen:
        own = level(listed[number].entry.tier)
        wanted = np.minimum(needed[number], own)
        for rank in np.unique(wanted[wanted > _NOBODY]).tolist():
            some = np.flatnonzero(wanted == rank)
            by_tiers.setdefault((rank, own), []).append((number, some))
    at_once = max(spec.segment_bytes // (12 + 4 * (spec.dim + spec.state_size)), 1)
    pieces: list[Piece] = []
    for (rank, own), groups in sorted(by_tiers.items(), reverse=True):
        sources = np.concatenate([np.full(len(some), number, np.int32) for number, some in groups])
        ranks = np.concatenate([some for _, some in groups])
        ordinals = np.concatenate([listed[number].ordinals[some] for number, some in groups])
        for layer in _layers(ordinals, sources):
            for start in range(0, len(layer), at_once):
                some = layer[start : start + at_once]
                for number in np.unique(sources[some]).tolist():
                    here = some[sources[some] == number]
                    places[number][ranks[here]] = len(pieces)
                pieces.append(Piece(TIERS[rank], rank == own, sources[some], ranks[some], ordinals[some]))
    return pieces, places


def _layers(ordinals: NDArray[np.uint32], sources: NDArray[np.int32]) -> Iterator[NDArray[np.int64]]:
    """Yield places of rows with distinct ordinals, increasing; of equal ones the newest source first."""
    order = np.lexsort((-sources, ordinals))
    firsts = np.flatnonzero(np.diff(ordinals[order].astype(np.int64), prepend=_NOBODY))
    lengths = np.diff(np.append(firsts, len(order)))
    turn = np.arange(len(order)) - np.repeat(firsts, lengths)
    for number in range(int(lengths.max(initial=0))):
        yield order[turn == number]


def _written(spec: PartSpec, plan: Rewrite, piece: Piece, sink: Sink) -> SegmentRef:
    sources = [(number, np.flatnonzero(piece.sources == number)) for number in np.unique(piece.sources)]
    entries = [plan.segments[number].entry for number, _ in sources]
    losses = Losses(
        piece.tier, max(each.error for each in entries), max(each.state_error for each in entries)
    )
    nothing: dict[str, Array] = {"dead": np.zeros(0, np.uint32), "dead_lsn": np.zeros(0, np.uint64)}
    key = spec.key("seg")
    if piece.copied:
        names = plan.segments[sources[0][0]].columns()
        columns: dict[str, Array] = {}
        for name in names:
            taken = [plan.segments[number].stored(name, piece.ranks[here]) for number, here in sources]
            columns[name] = np.empty((len(piece.ranks), *taken[0].shape[1:]), taken[0].dtype)
            for (_, here), values in zip(sources, taken, strict=True):
                columns[name][here] = values
        everything: dict[str, Array] = {"ord": piece.ordinals, **nothing, **columns}
        ordered = dict(sorted(everything.items(), key=lambda pair: -pair[1].dtype.itemsize))
        about = {"table": spec.table, "part": str(spec.part), "txn": spec.txn}
        entry, sealed = seal_segment(key, about, ordered, losses)
    else:
        data = _values(spec, plan, piece)
        entry, sealed = write_lossy(key, spec.table, spec.part, spec.txn, data, losses)
    sink(sealed)
    return replace(entry, merged=True)


def _values(spec: PartSpec, plan: Rewrite, piece: Piece) -> SegmentData:
    count, nothing = len(piece.ranks), np.zeros(0, np.uint32)
    rows, state = (np.zeros((count, width), np.float32) for width in (spec.dim, spec.state_size))
    lsn = np.zeros(count, np.uint64)
    for number in np.unique(piece.sources):
        here = np.flatnonzero(piece.sources == number)
        segment, ranks = plan.segments[number], piece.ranks[here]
        lsn[here], rows[here], state[here] = segment.lsns(ranks), segment.rows(ranks), segment.state(ranks)
    return SegmentData(piece.ordinals, lsn, rows, state, nothing, nothing.astype(np.uint64))


def _remapped(
    spec: PartSpec,
    shown: Shown,
    plan: Rewrite,
    numbers: dict[str, int],
    written: Sequence[SegmentRef],
    cache: ObjectCache,
    sink: Sink,
) -> PartManifest:
    """Return the first segments of a shard with an owner map over all of them, old and new.

    What is stored less exactly than the version may show is not in it: segments behind these have it anew.
    """
    front, allowed = shown.part, level(shown.tier)
    tiers = np.array([*(level(each.tier) for each in written), len(TIERS)], np.int8)
    codes = PartReader(cache, front, spec.dim, spec.state_size).codes()
    after = np.zeros(len(codes), np.int32)  # 1 + place among the old segments, or behind them the new
    entries = [*front.segments, *written]
    for place, entry in enumerate(front.segments):
        number = numbers[entry.ref.key]
        ordinals = plan.segments[number].ordinals
        mine = codes[ordinals] == place + 1
        if number not in plan.places:
            after[ordinals[mine]] = place + 1
            continue
        moved = plan.places[number][mine]
        there = (moved > _NOBODY) & (tiers[moved] >= allowed)
        after[ordinals[mine]] = np.where(there, len(front.segments) + 1 + moved, 0)
    live = np.unique(after)
    live = live[live > 0]
    if not len(live):
        return replace(front, segments=(), owners=None)
    renumbered = np.zeros(len(entries) + 1, np.uint16)
    renumbered[live] = np.arange(1, len(live) + 1)
    kept = tuple(entries[place - 1] for place in live.tolist())
    owners, sealed = write_owner_map(
        spec.key("own"), spec.table, spec.part, renumbered[after], [each.ref.key for each in kept]
    )
    sink(sealed)
    return replace(front, segments=kept, owners=owners)
