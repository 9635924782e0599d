"""Is this log the one the stored position was made from?

Invariant: a shard whose log does not continue its position stops and says so. It
never resets by itself: that would lose or repeat updates silently.
"""

from __future__ import annotations

import logging

from driftline import topics
from driftline.errors import OffsetError, PositionError
from driftline.log import Log
from driftline.ops.continuation import Continuation, examine
from driftline.shard.position import Position

_logger = logging.getLogger(__name__)


async def check_log(log: Log, table: str, shard: int, position: Position) -> None:
    """Raise PositionError unless the gradients log continues `position`."""
    topic, name = topics.gradients(table), f"shard {table}:{shard}"
    spec = position.table_spec()
    partitions = (await log.topics()).get(topic)
    if spec is not None and partitions is not None and partitions != spec.shards:
        raise PositionError(
            f"{name}: topic {topic} has {partitions} partitions, the table {spec.shards} shards: "
            "an id would go to another shard; make the topic anew with as many, then "
            f"`driftline table relog {table}` starts a new log generation"
        )
    try:
        found = await examine(log, table, shard, position)
    except OffsetError as error:
        raise PositionError(f"{name}: {error}") from error
    begin, end = found.bounds.begin, found.bounds.end
    anew = f"`driftline table relog {table}` starts a new log generation"
    match found.continuation:
        case Continuation.ENDS_BEFORE:
            raise PositionError(
                f"{name}: the store stands at offset {position.next}, the log ends at {end}: "
                f"the log lost its tail or the topic was made anew. {anew}"
            )
        case Continuation.BEGINS_BEHIND:
            raise PositionError(
                f"{name}: the store stands at offset {position.next}, the log begins at {begin}: "
                f"records [{position.next}, {begin}) of {topic}, {begin - position.next} in all, "
                "were removed unapplied, by retention. "
                f"`driftline table relog {table}` goes on without them in a new log generation"
            )
        case Continuation.ANOTHER_LOG:
            raise PositionError(
                f"{name}: the record at offset {position.next - 1} is not the one that was applied: "
                f"another log. {anew}"
            )
        case Continuation.UNCHECKED:
            _logger.warning(
                "%s: the record before offset %d is gone, its fingerprint unchecked", name, position.next
            )
        case Continuation.CONTINUES:
            pass
