"""Is this log the one the stored position was made from?

Invariant: a shard whose log does not continue its position stops and says so. It
never resets by itself: that would lose or repeat updates silently.
"""

from __future__ import annotations

import logging

from driftline import topics
from driftline.errors import OffsetError, PositionError
from driftline.log import Log
from driftline.shard.position import Position, fingerprint

_logger = logging.getLogger(__name__)
_READ_WAIT = 10.0


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
    bounds = await log.bounds(topic, shard)
    if position.next > bounds.end:
        raise PositionError(
            f"{name}: the store stands at offset {position.next}, the log ends at {bounds.end}: "
            "the log lost its tail or the topic was made anew. "
            f"`driftline table relog {table}` starts a new log generation"
        )
    if position.next < bounds.begin:
        raise PositionError(
            f"{name}: the store stands at offset {position.next}, the log begins at {bounds.begin}: "
            f"records [{position.next}, {bounds.begin}) of {topic}, {bounds.begin - position.next} in all, "
            "were removed unapplied, by retention. "
            f"`driftline table relog {table}` goes on without them in a new log generation"
        )
    if position.next == bounds.begin:
        if position.next:
            _logger.warning(
                "%s: the record before offset %d is gone, its fingerprint unchecked", name, position.next
            )
        return
    reader = log.reader(topic, shard, position.next - 1)
    try:
        records = await reader.read(max_bytes=1, wait=_READ_WAIT)
    except OffsetError as error:
        raise PositionError(f"{name}: {error}") from error
    finally:
        await reader.close()
    if not records or records[0].offset != position.next - 1 or fingerprint(records[0]) != position.fp:
        raise PositionError(
            f"{name}: the record at offset {position.next - 1} is not the one that was applied: another log. "
            f"`driftline table relog {table}` starts a new log generation"
        )
