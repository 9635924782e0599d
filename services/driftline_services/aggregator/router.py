"""Forwards the ops of a group to every shard of every table of the group.

Invariant: op n is acknowledged in every partition before op n+1 is sent to any. Only a
table whose gradients topic does not exist is passed over, and the op put with the refused ones.
A router that starts again repeats ops, which shards recognise by their number;
two routers at once do no harm, because each keeps that order. A request is carried
out once, however often it is in the ops log: all routers judge that from the log alone.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

import numpy as np

from driftline import clock, topics
from driftline.errors import ConfigError, FrameError, LogUnavailableError
from driftline.frames.events import (
    BARRIER,
    GROUP,
    MOVE,
    PREPARE,
    QUARANTINE,
    RESTORE,
    RESTORE_ROWS,
    SPEC,
    Op,
    Origin,
    write_event,
)
from driftline.frames.headers import Keyring, cloud_event
from driftline.frames.reasons import Reason
from driftline.ids import OPS_PRODUCER, shard_of
from driftline.log import Log, Outgoing, Record
from driftline.ops.catalogue import Born
from driftline.ops.requests import Asked, op_number, read_op
from driftline.ops.window import SPAN, RequestWindow
from driftline.shard.acceptance import check_move
from driftline.shard.plan import Rejected
from driftline.shard.restore import check_asked, restore_body
from driftline.shard.spec import TableSpec
from driftline_services.aggregator.appending import append
from driftline_services.aggregator.dead_letters import dead_letter
from driftline_services.aggregator.placing import Placement

_logger = logging.getLogger(__name__)
_WAIT = 10.0
FORWARDED = frozenset({SPEC, BARRIER, QUARANTINE, RESTORE_ROWS, MOVE, PREPARE, RESTORE})
GRACE = 5.0
"""Seconds for which the log must say that a topic does not exist. A broker that has just started
answers before it has read what it knows."""

_PROMPT = 1.0  # seconds until somebody asks why an append takes so long
_ASK_AGAIN = 0.5
OF_ONE_TABLE = frozenset({RESTORE_ROWS, MOVE})


def resume_offset(tables: Mapping[str, Born], seen: Mapping[tuple[str, int], int]) -> int | None:
    """Return the offset of the first op that some shard may not have seen; None without tables.

    `seen` holds the number of the last op per (table, shard) known to the store.
    """
    offsets = [
        max(seen.get((name, shard), 0), born.offset)  # op n is at offset n-1: the next one is at n
        for name, born in tables.items()
        for shard in range(born.spec.shards)
    ]
    return min(offsets, default=None)


class Router:
    """The ops topic's one reader that writes."""

    def __init__(
        self,
        log: Log,
        group: str,
        keyring: Keyring,
        tables: Mapping[str, Born],
        placement: Placement | None = None,
        grace: float = GRACE,
        now: clock.Clock = clock.monotonic,
    ) -> None:
        self._log, self._group, self._keyring, self._tables = log, group, keyring, tables
        self._placement, self._grace, self._now = placement, grace, now
        self._window = RequestWindow()
        self.refused: Counter[str] = Counter()  # requests by reason
        self.gone: dict[str, str] = {}
        """Tables that ops could not be forwarded to, because their topic does not exist; with the message."""

    async def begin(self, start: int) -> None:
        """Learn which requests are in the log before `start`, the offset of the next to be forwarded."""
        self._window = RequestWindow()
        topic = topics.ops(self._group)
        bounds = await self._log.bounds(topic, 0)
        end = min(start, bounds.end)  # a start behind the end of the log stops the worker elsewhere
        reader = self._log.reader(topic, 0, min(max(bounds.begin, start - SPAN), end))
        try:
            while reader.position < end:
                for record in await reader.read(wait=_WAIT):
                    if record.offset < end:
                        with contextlib.suppress(FrameError):  # dead letters already
                            self._judge(record)
        finally:
            await reader.close()

    async def forward(self, record: Record) -> None:
        """Forward the op in `record`, or put it with the refused ones. Waits out an absent log."""
        try:
            op = self._judge(record).op
            targets = await self._targets(op, record.offset)
        except (FrameError, ConfigError) as error:
            reason = error.reason if isinstance(error, FrameError) else Reason.BAD_SPEC
            self.refused[reason] += 1
            letter = dead_letter(self._group, 0, Rejected(record, reason, str(error)))
            _logger.warning("op at %s/%d refused: %s", topics.ops(self._group), record.offset, error)
            await append(self._log, topics.refused_ops(self._group), 0, [letter])
            return
        tables: dict[str, list[Op]] = {}
        for frame in targets:
            tables.setdefault(frame.table, []).append(frame)
        reached = await asyncio.gather(*(self._deliver(table, frames) for table, frames in tables.items()))
        missed = [table for table, there in zip(tables, reached, strict=True) if not there]
        if missed:
            await self._refuse_missed(record, op, missed)
        number = sum(len(frames) for table, frames in tables.items() if table not in missed)
        _logger.info("op %d (%s) forwarded to %d shards", op_number(record.offset), op.kind, number)

    async def look_again(self) -> None:
        """Forget those of `gone` whose topic is there again."""
        for table in list(self.gone):
            if not await self._missing(table):
                self.gone.pop(table, None)

    async def _deliver(self, table: str, frames: Sequence[Op]) -> bool:
        """Append an op's frames to a table's shards, however long it takes; False if it has no topic."""
        if table in self.gone:
            if await self._missing(table):
                return False
            self.gone.pop(table, None)
        appends: asyncio.Future[list[None]] = asyncio.gather(
            *(append(self._log, topics.gradients(table), each.shard, [self._signed(each)]) for each in frames)
        )
        absence: asyncio.Task[None] | None = None
        try:
            await asyncio.wait({appends}, timeout=_PROMPT)
            if not appends.done():
                absence = asyncio.create_task(self._until_gone(table))
                watched: set[asyncio.Future[object]] = {appends, absence}  # type: ignore[arg-type]
                await asyncio.wait(watched, return_when=asyncio.FIRST_COMPLETED)
            if appends.done():
                await appends
                return True
            assert absence is not None, "one of the two is done"
            await absence
            return False
        finally:
            both = [each for each in (appends, absence) if each is not None]
            for each in both:
                each.cancel()
            await asyncio.gather(*both, return_exceptions=True)

    async def _until_gone(self, table: str) -> None:
        """Return once the log has said for `grace` seconds on end that the table has no topic."""
        since: float | None = None
        while since is None or self._now() - since < self._grace:
            if not await self._missing(table):
                since = None
            elif since is None:
                since = self._now()
            await asyncio.sleep(_ASK_AGAIN)

    async def _missing(self, table: str) -> bool:
        """Tell whether the log answers, and has no topic for the table."""
        try:
            return topics.gradients(table) not in await self._log.topics()
        except LogUnavailableError:
            return False

    async def _refuse_missed(self, record: Record, op: Op, missed: Sequence[str]) -> None:
        for table in missed:
            self.gone[table] = (
                f"table {table}: topic {topics.gradients(table)} does not exist; ops go on without it. "
                "Make it again, with as many partitions as the table has shards, then "
                f"`driftline table relog {table}`"
            )
            _logger.error("op %d (%s): %s", op_number(record.offset), op.kind, self.gone[table])
        message = "; ".join(self.gone[table] for table in missed)
        letter = dead_letter(self._group, 0, Rejected(record, Reason.NO_TOPIC, message))
        await append(self._log, topics.refused_ops(self._group), 0, [letter])

    def _judge(self, record: Record) -> Asked:
        asked = read_op(record, self._keyring, self._group)
        self._window.check(asked, record.offset)
        return asked

    async def _targets(self, op: Op, offset: int) -> list[Op]:
        if op.kind not in FORWARDED:
            raise FrameError(Reason.UNSUPPORTED, f"this release does not carry out op {op.kind!r}")
        number = op_number(offset)
        if op.kind == SPEC:
            spec = TableSpec.from_json(op.body)
            if spec.group != self._group:
                raise FrameError(Reason.BAD_SPEC, f"table {spec.name} belongs to group {spec.group!r}")
            await self._create_topics(spec)
            return await self._births(op, spec, offset)
        if op.kind == MOVE:
            await self._check_move(op)
        check_asked(op)
        return [
            _part(op, born.spec, shard, number)
            for born in self._reached(op, offset)
            for shard in range(born.spec.shards)
        ]

    async def _births(self, op: Op, spec: TableSpec, offset: int) -> list[Op]:
        """Return the spec's frames; those of a new table say on which server the shard is born."""
        number, known = op_number(offset), self._tables.get(spec.name)
        parts = [_part(op, spec, shard, number) for shard in range(spec.shards)]
        if self._placement is None or (known is not None and known.offset < offset):
            return parts
        servers = await self._placement.servers_for(spec.shards)
        if servers is None:
            return parts
        return [
            replace(part, body={**part.body, "server": server})
            for part, server in zip(parts, servers, strict=True)
        ]

    async def _check_move(self, op: Op) -> None:
        born = self._tables.get(op.table)
        if born is not None:
            check_move(op, born.spec.shards)
        if self._placement is not None:
            await self._placement.check_target(op.body.get("server"))

    def _reached(self, op: Op, offset: int) -> Iterable[Born]:
        if op.kind in OF_ONE_TABLE:
            known = self._tables.get(op.table)
            if known is None or known.offset > offset:  # the catalogue may have read further
                raise FrameError(Reason.UNKNOWN_TABLE, f"{op.kind} for table {op.table!r}")
        return [
            born
            for name, born in sorted(self._tables.items())
            if born.offset < offset and (op.kind not in OF_ONE_TABLE or name == op.table)
        ]

    async def _create_topics(self, spec: TableSpec) -> None:
        for name in (topics.gradients(spec.name), topics.updates(spec.name), topics.dead_letters(spec.name)):
            await self._log.create_topic(name, spec.shards)

    def _signed(self, frame: Op) -> Outgoing:
        value = write_event(frame, more={GROUP: self._group})
        event_id = f"op/{frame.origin.seq}/{frame.shard}"
        headers = cloud_event(frame.kind, f"group/{self._group}", event_id)
        return Outgoing(value, None, (*headers, *self._keyring.sign(value)))


def _part(op: Op, spec: TableSpec, shard: int, number: int) -> Op:
    origin = Origin(OPS_PRODUCER, 0, number)
    if op.kind == RESTORE:
        return Op(op.kind, spec.name, shard, origin, restore_body(op.body, spec.name))
    if op.kind != RESTORE_ROWS or op.rows is None or op.state is None:
        return Op(op.kind, spec.name, shard, origin, op.body)
    mine = np.flatnonzero(shard_of(op.ids, spec.shards) == shard)
    return Op(op.kind, spec.name, shard, origin, op.body, op.ids[mine], op.rows[mine], op.state[mine])
