"""From the states collected since a version to the next version of one shard.

Invariant: what is sealed is the base's rows with the delta's over them, and its number
of live rows is the one in the position at the barrier, or it is not sealed: a state
that was lost on the way cannot become a version.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from driftline.errors import DeltaError
from driftline.versions.cache import ObjectCache
from driftline.versions.delta import DeltaBuffer
from driftline.versions.dictionary import ChunkRef, IdDictionary, to_merge, write_chunk
from driftline.versions.manifest import PartManifest, Place
from driftline.versions.owners import OwnerRef, write_owner_map
from driftline.versions.parts import PartReader
from driftline.versions.partspec import PartSpec, Sink
from driftline.versions.rewriting import Limits, Shown, plan_rewrite, rewrite
from driftline.versions.segments import SegmentData, SegmentRef, write_segment


def seal_part(
    spec: PartSpec,
    base: PartManifest | None,
    delta: DeltaBuffer | None,
    place: Place,
    cache: ObjectCache,
    sink: Sink,
) -> PartManifest:
    """Return the shard as it is at `place`; its new objects have gone to `sink`.

    `base` is the shard that the states of `delta` came after (None: an empty one). Raises DeltaError
    if the rows do not add up to the position's `rows`, and whatever reading the base raises.
    """
    begin = base.place.number("next") if base is not None else 0
    before = base if base is not None else PartManifest(place, 0, 0)
    changes = _changes(spec, before, delta, cache)
    rows = before.rows + changes.births - len(changes.dead)
    if "rows" in place.position and place.number("rows") != rows:
        raise DeltaError(
            f"{spec.table}:{spec.part}: the position at the barrier says {place.number('rows')} rows, the "
            f"states collected since {before.rows} make {rows}: updates are missing; begin again from the "
            "last version"
        )
    segments, dictionary = list(before.segments), before.dictionary
    if delta is not None:
        segments += _write_segments(spec, changes, delta, sink)
    if len(changes.new_ids):
        dictionary = _write_dictionary(spec, before, changes, cache, sink)
    sealed = PartManifest(
        place,
        rows,
        begin,
        tuple(segments),
        dictionary,
        before.owners,
        len(changes.places) + len(changes.dead),
    )
    covers = before.owners.covers if before.owners is not None else 0
    if len(segments) - covers > spec.owner_every:
        sealed = _anchor(spec, sealed, cache, sink)
    return sealed


@dataclass(frozen=True, slots=True)
class _Changes:
    places: NDArray[np.int64]  # of rows to store, by ordinal
    ordinals: NDArray[np.uint32]
    lsn: NDArray[np.uint64]
    dead: NDArray[np.uint32]  # ordinals that ended, increasing
    dead_lsn: NDArray[np.uint64]
    births: int
    new_ids: NDArray[np.uint64]
    new_ordinals: NDArray[np.uint32]


def _changes(spec: PartSpec, before: PartManifest, delta: DeltaBuffer | None, cache: ObjectCache) -> _Changes:
    index = (delta if delta is not None else DeltaBuffer(spec.dim, spec.state_size)).index()
    reader = PartReader(cache, before, spec.dim, spec.state_size)
    earlier = reader.dictionary.find(index.ids)
    alive = np.asarray(~index.dead)
    same_life = alive & (earlier == index.ordinals.astype(np.int64))
    # an earlier life under another ordinal, or one that is over: it ends here, if it had not before
    ending = (earlier >= 0) & ~same_life
    ended = np.zeros(len(index.ids), np.bool_)
    ended[ending] = reader.locate(earlier[ending]).found
    order = np.argsort(earlier[ended])
    places = np.flatnonzero(alive)
    places = places[np.argsort(index.ordinals[places], kind="stable")]
    twice = np.flatnonzero(np.diff(index.ordinals[places].astype(np.int64)) == 0)
    if len(twice):
        both = places[twice[0] : twice[0] + 2]
        raise DeltaError(
            f"{spec.table}:{spec.part}: ids {index.ids[both[0]]} and {index.ids[both[1]]} share ordinal "
            f"{index.ordinals[both[0]]}: updates of two tables; begin again from the last version"
        )
    new = alive & ~same_life
    return _Changes(
        places,
        index.ordinals[places],
        index.lsn[places],
        earlier[ended][order].astype(np.uint32),
        index.lsn[ended][order],
        int(np.count_nonzero(new)),
        index.ids[new],
        index.ordinals[new],
    )


def _write_segments(spec: PartSpec, changes: _Changes, delta: DeltaBuffer, sink: Sink) -> list[SegmentRef]:
    stride = 12 + 4 * (spec.dim + spec.state_size)
    at_once = max(spec.segment_bytes // stride, 1)
    written: list[SegmentRef] = []
    dead, dead_lsn = changes.dead, changes.dead_lsn
    for start in range(0, max(len(changes.places), 1), at_once):
        some = slice(start, start + at_once)
        if not len(changes.places[some]) and not len(dead):
            continue
        rows, state = delta.take(changes.places[some])
        data = SegmentData(changes.ordinals[some], changes.lsn[some], rows, state, dead, dead_lsn)
        entry, sealed = write_segment(spec.key("seg"), spec.table, spec.part, spec.txn, data)
        sink(sealed)
        written.append(entry)
        dead, dead_lsn = dead[:0], dead_lsn[:0]
    return written


def _write_dictionary(
    spec: PartSpec, before: PartManifest, changes: _Changes, cache: ObjectCache, sink: Sink
) -> tuple[ChunkRef, ...]:
    chunks = before.dictionary
    merged = to_merge(chunks, len(changes.new_ids))
    kept, swallowed = chunks[: len(chunks) - merged], chunks[len(chunks) - merged :]
    dictionary = IdDictionary(cache, swallowed)
    parts = [dictionary.chunk(each) for each in swallowed] + [(changes.new_ids, changes.new_ordinals)]
    ids, ordinals = np.concatenate([each for each, _ in parts]), np.concatenate([each for _, each in parts])
    order = np.lexsort((ordinals, ids))
    last = np.ones(len(order), np.bool_)
    last[:-1] = ids[order][1:] != ids[order][:-1]
    keep = order[last]
    entry, sealed = write_chunk(spec.key("dict"), spec.table, spec.part, ids[keep], ordinals[keep])
    sink(sealed)
    return (*kept, entry)


def _anchor(spec: PartSpec, part: PartManifest, cache: ObjectCache, sink: Sink) -> PartManifest:
    """Return the shard with an owner map over all its segments, and without those that hold nothing alive.

    Where too many hold a few rows each, those of fewest rows are merged: lists do not grow for ever.
    """
    if len(part.segments) > spec.most_segments:
        shown = [Shown(part)]
        plan = plan_rewrite(spec, shown, Limits(0.0, spec.most_segments), cache)
        (part,) = rewrite(spec, shown, plan, cache, sink)
    codes = PartReader(cache, part, spec.dim, spec.state_size).codes()
    live = np.unique(codes)
    live = live[live > 0].astype(np.int64)
    renumbered = np.zeros(len(part.segments) + 1, np.uint16)
    renumbered[live] = np.arange(1, len(live) + 1)
    segments = tuple(part.segments[place - 1] for place in live.tolist())
    owners: OwnerRef
    owners, sealed = write_owner_map(
        spec.key("own"), spec.table, spec.part, renumbered[codes], [each.ref.key for each in segments]
    )
    sink(sealed)
    return replace(part, segments=segments, owners=owners)
