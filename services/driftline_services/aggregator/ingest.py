"""Forwards JSON messages of the ingest topic to the shards they concern, exactly once.

Invariants: the message at offset o of partition p becomes at most one frame per
shard, from producer `ingest:p` with sequence number o. Everything below the stored
position is acknowledged; per shard, frames are first appended in the order of their
offsets, whoever forwards: a batch is sent only when the one before it is acknowledged
everywhere. So a router that starts again, or two at once, repeat frames and never
skip or reorder any, and shards drop what they have seen.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Callable, Sequence

from driftline import topics
from driftline.errors import FrameError, LogUnavailableError, PositionError, UnknownTopicError
from driftline.frames.events import GROUP, Gradient, Origin, Upsert, write_event
from driftline.frames.headers import Keyring, cloud_event
from driftline.frames.reasons import Reason
from driftline.frames.unreadable import check_readable
from driftline.ids import MAX_INGEST_PARTITIONS, ingest_producer
from driftline.ingest import frames_of, parse_message
from driftline.log import MAX_RECORD_BYTES, Log, Outgoing, Record, record_size
from driftline.ops.catalogue import Catalogue
from driftline.rows.connection import Connect
from driftline.rows.layout import ShardKeys
from driftline.shard.plan import Rejected
from driftline.shard.position import fingerprint
from driftline.shard.spec import TableSpec
from driftline_services.aggregator.appending import append
from driftline_services.aggregator.dead_letters import dead_letter
from driftline_services.aggregator.ingest_position import Forwarded, ForwardedStore, start_offset
from driftline_services.chassis import Batch

_logger = logging.getLogger(__name__)
_BREATH = 32  # messages between two turns of the event loop: some 5 ms of small ones
_BIRTH_WAIT = 10.0  # seconds that a table in the ops log may take to get its topics and its spec
_BIRTH_POLL = 0.05
_RETRY = 0.5

Sending = dict[tuple[str, int], list[Outgoing]]
"""Frames by (table, shard), in order."""


class IngestRouter:
    """Forwards the partitions of one group's ingest topic that this worker owns."""

    def __init__(
        self,
        group: str,
        log: Log,
        keyring: Keyring,
        catalogue: Catalogue,
        connector: Callable[[ShardKeys], Connect],
        incarnation: int = 0,
    ) -> None:
        self._group, self.topic = group, topics.ingest(group)
        self._log, self._keyring, self._catalogue = log, keyring, catalogue
        self._incarnation = incarnation
        self._store = ForwardedStore(connector, self.topic)
        self._born: set[str] = set()  # tables whose logs begin
        self._given_up: set[str] = set()  # tables that were waited for
        self.positions: dict[int, int] = {}  # partition -> next offset to forward
        self.forwarded: Counter[int] = Counter()  # messages by partition
        self.refused: Counter[str] = Counter()  # messages by reason

    async def start(self, partition: int) -> int:
        """Return the offset to read `partition` from. Raises PositionError if log and store disagree."""
        self.positions.pop(partition, None)
        if partition >= MAX_INGEST_PARTITIONS:
            raise PositionError(
                f"{self.topic}/{partition}: shards know the producers of {MAX_INGEST_PARTITIONS} ingest "
                "partitions and would forget this one's; make the topic anew with fewer partitions"
            )
        done = await self._store.load(partition)
        start = await start_offset(self._log, self.topic, partition, done, self._incarnation)
        self.positions[partition] = start
        _logger.info("%s/%d: forwarding from offset %d", self.topic, partition, start)
        return start

    async def forward(self, batch: Batch) -> None:
        """Forward a batch; returns when all of it is acknowledged and the position behind it is stored.

        Waits out a log or a store that is away.
        """
        sending, letters = await self._sort(batch.partition, batch.records)
        refusals = append(self._log, topics.refused_ingest(self._group), 0, letters)
        await asyncio.gather(
            refusals,
            *(
                append(self._log, topics.gradients(table), shard, frames)
                for (table, shard), frames in sending.items()
            ),
        )
        if batch.records:
            last = batch.records[-1]
            done = Forwarded(batch.next, last.offset, fingerprint(last), self._incarnation)
            await self._store.store(batch.partition, done)
        self.positions[batch.partition] = batch.next
        self.forwarded[batch.partition] += len(batch.records) - len(letters)

    async def close(self) -> None:
        """Close what `forward` has opened."""
        await self._store.close()

    async def _sort(self, partition: int, records: Sequence[Record]) -> tuple[Sending, list[Outgoing]]:
        sending: Sending = {}
        letters: list[Outgoing] = []
        for count, record in enumerate(records, 1):
            try:
                frames = await self._patiently(partition, record)
            except FrameError as error:
                self.refused[error.reason] += 1
                if not letters:  # a line per batch: whoever sends nonsense sends a lot of it
                    _logger.warning(
                        "%s/%d: offset %d refused: %s", self.topic, partition, record.offset, error
                    )
                rejected = Rejected(record, error.reason, str(error))
                letters.append(dead_letter(self.topic, partition, rejected, 1 + self._incarnation))
            else:
                for frame, outgoing in frames:
                    sending.setdefault((frame.table, frame.shard), []).append(outgoing)
            if count % _BREATH == 0:
                await asyncio.sleep(0)
        return sending, letters

    async def _patiently(self, partition: int, record: Record) -> list[tuple[Gradient | Upsert, Outgoing]]:
        while True:
            try:
                return await self._frames(partition, record)
            except LogUnavailableError as error:  # a table was looked for
                _logger.warning("%s/%d: %s", self.topic, partition, error)
                await asyncio.sleep(_RETRY)

    async def _frames(self, partition: int, record: Record) -> list[tuple[Gradient | Upsert, Outgoing]]:
        """Return the frames of a message, none of which a shard refuses for its size. Raises FrameError."""
        check_readable(record.headers)
        message = parse_message(record.value)
        spec = await self._spec(message.table)
        origin = Origin(ingest_producer(partition), self._incarnation, record.offset)
        frames = [(frame, self._signed(frame, partition)) for frame in frames_of(message, spec, origin)]
        for frame, outgoing in frames:
            size = len(outgoing.value)
            if size > spec.policy.max_frame or record_size(outgoing) > MAX_RECORD_BYTES:
                raise FrameError(
                    Reason.OVERSIZED,
                    f"{len(frame.ids)} rows for shard {frame.shard} make a frame of {size} bytes, "
                    f"table {spec.name} takes {spec.policy.max_frame}: send fewer rows at once",
                )
        return frames

    def _signed(self, frame: Gradient | Upsert, partition: int) -> Outgoing:
        value = write_event(frame, more={GROUP: self._group})
        origin = frame.origin
        headers = cloud_event(
            type(frame).__name__.lower(),
            f"{self.topic}/{partition}",
            f"{origin.epoch}/{origin.seq}/{frame.shard}",
        )
        return Outgoing(value, None, (*headers, *self._keyring.sign(value)))

    async def _spec(self, table: str) -> TableSpec:
        """Return the spec of a table whose logs can be written to. Raises FrameError `unknown_table`."""
        if table not in self._catalogue.tables:
            await self._catalogue.catch_up()  # made before this message was sent, it is known after this
        born = self._catalogue.tables.get(table)
        if born is None:
            raise FrameError(Reason.UNKNOWN_TABLE, f"group {self._group!r} has no table {table!r}")
        if table not in self._born:
            await self._wait_for_birth(born.spec)
        return born.spec

    async def _wait_for_birth(self, spec: TableSpec) -> None:
        """Return when each shard's log begins: with the spec, ahead of which frames would be refused.

        The ops router may be a moment behind the catalogue. One that refuses the table's op
        never comes, which must not hold up the other tables for ever. Raises FrameError `no_spec`.
        """
        patience = 0.0 if spec.name in self._given_up else _BIRTH_WAIT
        begun = await self._all_begun(spec)
        while not begun and patience > 0:
            await asyncio.sleep(_BIRTH_POLL)
            patience -= _BIRTH_POLL
            begun = await self._all_begun(spec)
        if not begun:
            self._given_up.add(spec.name)
            raise FrameError(Reason.NO_SPEC, f"table {spec.name} is in the ops log, but has no log yet")
        self._born.add(spec.name)

    async def _all_begun(self, spec: TableSpec) -> bool:
        try:
            bounds = await asyncio.gather(
                *(self._log.bounds(topics.gradients(spec.name), shard) for shard in range(spec.shards))
            )
        except UnknownTopicError:
            return False
        return all(each.end for each in bounds)
