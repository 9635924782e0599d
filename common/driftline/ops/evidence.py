"""Reads what the verdict on a shard that cannot go on is made of.

Invariant: reads only. What the updates end with is looked for in their last records, so it is what
readers have seen unless a replay was cut off right there.
"""

from __future__ import annotations

from driftline import topics
from driftline.errors import FrameError, OffsetError, UnknownTopicError
from driftline.frames.states import States, read_update
from driftline.ids import lsn
from driftline.log import Log
from driftline.ops.continuation import Found, examine
from driftline.ops.starting import Candidate, Evidence
from driftline.rows.source import VersionPlace
from driftline.shard.position import Position
from driftline.shard.screen import MAX_FRAME

_LAST = 16  # records of the updates that are looked at
_WAIT = 10.0


async def evidence_of(log: Log, table: str, shard: int, position: Position, found: Found) -> Evidence:
    """Return what is known of a shard at `position`, to which its log stands as `found`."""
    return Evidence(position, found, await _told(log, table, shard))


async def candidate_of(log: Log, table: str, shard: int, place: VersionPlace) -> Candidate:
    """Return a version as a start of a shard."""
    found = await examine(log, table, shard, place.position)
    return Candidate(place.version, place.position, found.continuation)


async def _told(log: Log, table: str, shard: int) -> int:
    """Return the greatest LSN in the last records of a shard's updates, 0 if there are none."""
    topic, greatest = topics.updates(table), 0
    try:
        bounds = await log.bounds(topic, shard)
        reader = log.reader(topic, shard, max(bounds.begin, bounds.end - _LAST))
        try:
            while reader.position < bounds.end:
                for record in await reader.read(wait=_WAIT):
                    greatest = max(greatest, _lsn_in(record.value))
        finally:
            await reader.close()
    except (UnknownTopicError, OffsetError):  # deleted, or cut off meanwhile: then nobody can say
        return greatest
    return greatest


def _lsn_in(value: bytes) -> int:
    try:
        update = read_update(value, limit=MAX_FRAME)
    except FrameError:  # not an aggregator's
        return 0
    if isinstance(update, States):
        return int(update.lsn.max(initial=0))
    gen, following = update.position.get("gen"), update.position.get("next")
    if not isinstance(gen, int) or not isinstance(following, int) or following < 1:
        return 0
    return lsn(gen, following - 1)
