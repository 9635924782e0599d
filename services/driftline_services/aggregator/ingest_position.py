"""How far a partition of the ingest topic has been forwarded, as Redis holds it.

    dl:{<topic>:<partition>}:w   hash  next, last, fp, incarnation

Invariant: everything below `next` is acknowledged in the gradients topics (or the
dead letters) before it is written. Writers need no fence: an older position only
means that frames are sent again, which shards drop. What does not fit the log stops
the partition: it is never reset by itself.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass
from itertools import chain, repeat

from driftline.errors import OffsetError, PositionError, StoreUnavailableError
from driftline.log import Log
from driftline.rows import resp
from driftline.rows.connection import Connect, Connection
from driftline.rows.fields import read_fields
from driftline.rows.layout import ShardKeys
from driftline.shard.position import fingerprint

_logger = logging.getLogger(__name__)
_BACK_OFF = (0.01, 0.05, 0.2, 0.5, 1.0)
_READ_WAIT = 10.0
_FIELDS = (b"next", b"last", b"fp", b"incarnation")


@dataclass(frozen=True, slots=True)
class Forwarded:
    """A stretch of an ingest partition that is done."""

    next: int  # position behind it
    last: int  # offset of its last record
    fingerprint: str  # of that record
    incarnation: int  # of the topic


class ForwardedStore:
    """Reads and writes `Forwarded`; waits for Redis as long as it takes."""

    def __init__(self, connector: Callable[[ShardKeys], Connect], topic: str) -> None:
        self._connector, self._topic = connector, topic
        self._connections: dict[int, tuple[Connect, Connection | None]] = {}

    async def load(self, partition: int) -> Forwarded | None:
        """Return the stored position, None if there is none. Raises PositionError for a damaged one."""
        keys = ShardKeys.of(self._topic, partition)
        fields = await read_fields(self._connector(keys), keys, *_FIELDS)
        following, last, fp, incarnation = fields
        if following is None:
            return None
        try:
            return Forwarded(int(following), int(last or b""), (fp or b"").decode(), int(incarnation or b""))
        except ValueError as error:
            raise PositionError(
                f"{self._topic}/{partition}: the stored position is damaged: {error}"
            ) from None

    async def store(self, partition: int, done: Forwarded) -> None:
        """Write `done`; returns when Redis has it. One call at a time per partition."""
        values = (b"%d" % done.next, b"%d" % done.last, done.fingerprint.encode(), b"%d" % done.incarnation)
        keys = ShardKeys.of(self._topic, partition)
        command = resp.command(b"HSET", keys.position, *chain(*zip(_FIELDS, values, strict=True)))
        for delay in chain(_BACK_OFF, repeat(_BACK_OFF[-1])):
            connect, connection = self._connections.get(partition) or (self._connector(keys), None)
            try:
                connection = connection or await connect()
                self._connections[partition] = connect, connection
                (reply,) = await connection.exchange([command], 1)
                if not isinstance(reply, Exception):
                    return
                await connection.close()  # in a cluster another node may serve the key now
                self._connections[partition] = connect, None
                _logger.warning("%s/%d: Redis refuses the position: %s", self._topic, partition, reply)
            except StoreUnavailableError as error:
                self._connections[partition] = connect, None
                _logger.warning("%s/%d: position not written yet: %s", self._topic, partition, error)
            await asyncio.sleep(delay)

    async def close(self) -> None:
        """Close the connections; a later `store` opens another."""
        connections, self._connections = self._connections, {}
        for _, connection in connections.values():
            if connection is not None:
                await connection.close()


async def start_offset(log: Log, topic: str, partition: int, done: Forwarded | None, incarnation: int) -> int:
    """Return the offset to forward from: behind what is done, else the begin of the log.

    Raises PositionError when the log does not continue what is done.
    """
    name = f"{topic}/{partition}"
    bounds = await log.bounds(topic, partition)
    if done is None or done.incarnation < incarnation:
        return bounds.begin
    remedy = (
        "If the topic was deleted and made anew, raise ingest_incarnation "
        f"to {done.incarnation + 1} for all aggregators: what it holds then counts as new"
    )
    if done.incarnation > incarnation:
        raise PositionError(
            f"{name}: incarnation {done.incarnation} has been forwarded, "
            f"ingest_incarnation is {incarnation}; give this worker the others' setting"
        )
    if done.next > bounds.end:
        raise PositionError(
            f"{name}: forwarded up to offset {done.next}, the topic ends at {bounds.end}. {remedy}"
        )
    if done.next < bounds.begin:
        raise PositionError(
            f"{name}: forwarded up to offset {done.next}, the topic begins at {bounds.begin}: retention "
            f"removed {bounds.begin - done.next} messages that were never forwarded. To go on without them, "
            f"or if the topic was made anew, raise ingest_incarnation to {done.incarnation + 1}"
        )
    if done.last < bounds.begin:
        _logger.warning("%s: the message before offset %d is gone, its identity unchecked", name, done.next)
        return done.next
    reader = log.reader(topic, partition, done.last)
    try:
        records = await reader.read(max_bytes=1, wait=_READ_WAIT)
    except OffsetError as error:
        raise PositionError(f"{name}: {error}") from error
    finally:
        await reader.close()
    if not records or records[0].offset != done.last or fingerprint(records[0]) != done.fingerprint:
        raise PositionError(
            f"{name}: the message at offset {done.last} is not the one that was forwarded. {remedy}"
        )
    return done.next
