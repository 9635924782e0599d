"""Which tables a group has: read from the group's ops log, where they are born.

Invariant: the catalogue is a function of the ops log's prefix. Every instance
that has read as far knows the same tables. Records are entered in the order of the
log, each once, without a wait in between: so a request repeated there is known for one.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from driftline import topics
from driftline.errors import ConfigError, FrameError, LogUnavailableError
from driftline.frames.events import SPEC, Op, read_event
from driftline.frames.headers import Keyring
from driftline.frames.reasons import Reason
from driftline.log import Log, Record
from driftline.ops.requests import read_op
from driftline.ops.window import RequestWindow
from driftline.shard.screen import MAX_FRAME
from driftline.shard.spec import TableSpec

_logger = logging.getLogger(__name__)
_WAIT = 1.0


@dataclass(frozen=True, slots=True)
class Born:
    """A table, and the offset of the op that made it."""

    spec: TableSpec
    offset: int


async def named_tables(log: Log, group: str) -> tuple[str, ...]:
    """Return the tables that records of the ops log name as born, signed or not, in order; needs no key.

    Hints, to be confirmed by the shards: anybody who may write to the ops topic can name a table.
    """
    topic = topics.ops(group)
    if topic not in await log.topics():
        return ()
    bounds = await log.bounds(topic, 0)
    reader = log.reader(topic, 0, bounds.begin)
    names: dict[str, None] = {}
    try:
        while reader.position < bounds.end:
            for record in await reader.read(wait=_WAIT):
                with contextlib.suppress(FrameError):
                    event = read_event(record.value, limit=MAX_FRAME)
                    if isinstance(event, Op) and event.kind == SPEC:
                        names[event.table] = None
    finally:
        await reader.close()
    return tuple(names)


class Catalogue:
    """Follows the ops log and calls `on_table` for each table that appears."""

    def __init__(
        self,
        log: Log,
        group: str,
        keyring: Keyring,
        on_table: Callable[[TableSpec], Awaitable[None]] | None = None,
    ) -> None:
        self._log, self._group, self._keyring, self._on_table = log, group, keyring, on_table
        self._reader = log.reader(topics.ops(group), 0, 0)
        self._reading = asyncio.Lock()
        self._window = RequestWindow()
        self._next = 0  # offset of the record to enter next
        self._news: deque[TableSpec] = deque()  # not announced yet
        self.tables: dict[str, Born] = {}
        self.signed = 0  # requests signed for this group
        self.forged = 0  # records signed by nobody we know

    async def follow(self) -> None:
        """Follow the ops log, for ever."""
        while True:
            await self._read_patiently()

    async def catch_up(self) -> None:
        """Return once everything that is in the ops log now has been seen."""
        bounds = await self._log.bounds(topics.ops(self._group), 0)
        while self._next < bounds.end:
            await self._read(_WAIT, bounds.end)

    def offset_of(self, request: bytes) -> int | None:
        """Return where a request stands in the ops log that counts; None if it is not among the last."""
        return self._window.offset_of(request)

    async def close(self) -> None:
        """Stop following."""
        await self._reader.close()

    async def note(self, record: Record) -> None:
        """Return once `record`, and all before it, are entered and new tables are announced.

        Whoever reads the ops log too may call this; a record noted twice changes nothing.
        """
        while self._next < record.offset:
            await self._read_patiently()
        self._enter(record)
        await self._announce()

    async def _read_patiently(self) -> None:
        try:
            await self._read(_WAIT)
        except LogUnavailableError as error:
            _logger.warning("ops log of group %s: %s", self._group, error)
            await asyncio.sleep(_WAIT)

    async def _read(self, wait: float, end: int | None = None) -> None:
        """Read on; nothing if meanwhile somebody else has read up to `end`, or it would wait for more."""
        async with self._reading:
            if end is None or self._next < end:
                for record in await self._reader.read(wait=wait):
                    self._enter(record)
                self._next = max(self._next, self._reader.position)  # the log may have gaps
        await self._announce()

    async def _announce(self) -> None:
        while self._news:
            spec = self._news.popleft()
            try:
                if self._on_table is not None:
                    await self._on_table(spec)
            except BaseException:
                self._news.appendleft(spec)
                raise

    def _enter(self, record: Record) -> None:
        """Enter the table that `record` makes; a later spec op of a known table replaces its spec."""
        if record.offset < self._next:
            return
        self._next = record.offset + 1
        try:
            asked = read_op(record, self._keyring, self._group)
            self.signed += 1
            self._window.check(asked, record.offset)
            if asked.op.kind != SPEC:
                return
            spec = TableSpec.from_json(asked.op.body)
        except FrameError as error:  # the router says why
            self.forged += error.reason == Reason.FORGED
            return
        except ConfigError:
            return  # likewise
        if spec.group != self._group:
            return
        known = self.tables.get(spec.name)
        if known is not None and known.spec.change_refused(spec):
            return  # the shards refuse it too: the table stays what it was
        self.tables[spec.name] = Born(spec, known.offset if known else record.offset)
        if known is None:
            self._news.append(spec)
