"""Does a log continue a position? The one verdict of those who take a shard over and those who relog it.

Invariant: `verdict` is a function of the position, of the log's bounds and of the record before the
position. What it does not call CONTINUES or UNCHECKED nobody may go on from.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, auto

from driftline import topics
from driftline.log import Bounds, Log, Record
from driftline.shard.position import Position, fingerprint

_READ_WAIT = 10.0


class Continuation(Enum):
    """How a log stands to a position."""

    CONTINUES = auto()
    UNCHECKED = auto()  # it begins right there: the record before is gone, and its fingerprint with it
    ENDS_BEFORE = auto()  # it lost its tail, or was made anew
    BEGINS_BEHIND = auto()  # retention removed records that were not applied
    ANOTHER_LOG = auto()  # the record before the position is not the one that was applied

    @property
    def fits(self) -> bool:
        """Whether to go on from the position in this log."""
        return self in (Continuation.CONTINUES, Continuation.UNCHECKED)


@dataclass(frozen=True, slots=True)
class Found:
    """A verdict, and the bounds of the log that it is about."""

    continuation: Continuation
    bounds: Bounds


def verdict(position: Position, bounds: Bounds, last: Record | None) -> Continuation:
    """Judge a log; `last` is its record before the position, None if there is none to be read."""
    if position.next > bounds.end:
        return Continuation.ENDS_BEFORE
    if position.next < bounds.begin:
        return Continuation.BEGINS_BEHIND
    if position.next == 0:
        return Continuation.CONTINUES
    if position.next == bounds.begin:
        return Continuation.UNCHECKED
    same = last is not None and last.offset == position.next - 1 and fingerprint(last) == position.fp
    return Continuation.CONTINUES if same else Continuation.ANOTHER_LOG


async def examine(log: Log, table: str, shard: int, position: Position) -> Found:
    """Compare the gradients log of a shard with its position. Raises OffsetError if it shrinks meanwhile."""
    topic = topics.gradients(table)
    bounds = await log.bounds(topic, shard)
    last: Record | None = None
    if bounds.begin < position.next <= bounds.end:
        reader = log.reader(topic, shard, position.next - 1)
        try:
            last = next(iter(await reader.read(max_bytes=1, wait=_READ_WAIT)), None)
        finally:
            await reader.close()
    return Found(verdict(position, bounds, last), bounds)
