"""A log in memory, with the contract of `driftline.log.base` and none of its comforts.

Invariant: dense stable offsets, batches whole and contiguous, timestamps that never
go back within a partition. An append that raises LogUnavailableError may be in the
log, may not be, or may get there yet; reads come in short batches and fail at times.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self

from driftline.errors import (
    InputError,
    LogUnavailableError,
    OffsetError,
    PartitionCountError,
    UnknownTopicError,
)
from driftline.log.base import Bounds, Outgoing, Record
from tests.simulation.world.process import Process
from tests.simulation.world.world import World


@dataclass(slots=True)
class Partition:
    """One partition as the broker holds it."""

    begin: int = 0
    records: list[Record] = field(default_factory=list)
    waiting: list[asyncio.Future[None]] = field(default_factory=list)

    @property
    def end(self) -> int:
        return self.begin + len(self.records)


class FakeLog:
    """The broker; the code under test reaches it by `handle(process)`."""

    def __init__(self, world: World, *, max_record: int = 8 << 20) -> None:
        self.world = world
        self.rng = world.random("log")
        self.max_record = max_record
        self.topics: dict[str, list[Partition]] = {}
        self._skipped_ms = 0
        self._away: dict[str, float] = {}  # topic -> when it takes appends again
        self._watcher: Callable[[str, int, Sequence[Record]], None] | None = None

    def watch_appends(self, watcher: Callable[[str, int, Sequence[Record]], None]) -> None:
        """Have `watcher` told of each batch (topic, partition, records) as it stands in the log."""
        self._watcher = watcher

    def handle(self, process: Process) -> FakeLogHandle:
        return FakeLogHandle(self, process)

    def create(self, topic: str, partitions: int) -> None:
        """Make sure a topic exists; raises PartitionCountError when it has another partition count."""
        known = self.topics.setdefault(topic, [Partition() for _ in range(partitions)])
        if len(known) != partitions:
            raise PartitionCountError(f"topic {topic} has {len(known)} partitions, not {partitions}")

    def partition(self, topic: str, partition: int) -> Partition:
        found = self.topics.get(topic, [])
        if not 0 <= partition < len(found):
            raise UnknownTopicError(
                f"{topic}.{partition} does not exist; {topic} has {len(found)} partitions"
            )
        return found[partition]

    def put(self, topic: str, partition: int, records: Sequence[Outgoing]) -> int:
        """Append at once and without faults; return the first offset. For the test and the fakes."""
        part = self.partition(topic, partition)
        first = part.end
        clock = int(self.world.now() * 1000) + self._skipped_ms
        stamp = max(clock, part.records[-1].timestamp) if part.records else clock
        for record in records:
            part.records.append(Record(part.end, stamp, record.key, record.value, record.headers))
        if self._watcher is not None:
            self._watcher(topic, partition, part.records[len(part.records) - len(records) :])
        waiting, part.waiting = part.waiting, []
        for future in waiting:
            if not future.done():
                future.set_result(None)
        return first

    def skip_time(self, ms: int) -> None:
        """Let the log's clock jump ahead: producers fall silent, without anybody waiting."""
        self.world.trace("log", f"clock jumps ahead by {ms} ms")
        self._skipped_ms += ms

    def take_away(self, topic: str, seconds: float) -> None:
        """Let all appends to `topic` fail for so long, as while no leader is elected."""
        self.world.trace("log", f"{topic} takes no appends for {seconds:.3f} s")
        self._away[topic] = self.world.loop.time() + seconds

    def is_away(self, topic: str) -> bool:
        return self.world.loop.time() < self._away.get(topic, 0.0)

    def trim(self, topic: str, partition: int, begin: int) -> None:
        """Forget what lies before `begin`, as retention does."""
        part = self.partition(topic, partition)
        begin = min(max(begin, part.begin), part.end)
        del part.records[: begin - part.begin]
        part.begin = begin
        self.world.trace("log", f"{topic}.{partition} now begins at {begin}")

    def lose_tail(self, topic: str, partition: int, count: int) -> None:
        """Lose acknowledged records at the end: what must stop a shard, never be guessed away."""
        part = self.partition(topic, partition)
        del part.records[max(0, len(part.records) - count) :]
        self.world.trace("log", f"{topic}.{partition} lost its tail and ends at {part.end}")


class FakeLogHandle:
    """One process's view of the log: implements `driftline.log.base.Log`."""

    def __init__(self, log: FakeLog, process: Process) -> None:
        self._log = log
        self._process = process

    async def start(self) -> None:
        await self._process.pass_door()

    async def close(self) -> None:
        """Nothing to release; a dead process may close as well."""

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def topics(self) -> Mapping[str, int]:
        await self._pause()
        return {name: len(partitions) for name, partitions in self._log.topics.items()}

    async def create_topic(self, topic: str, partitions: int) -> None:
        await self._pause()
        self._log.create(topic, partitions)

    async def bounds(self, topic: str, partition: int) -> Bounds:
        await self._pause()
        part = self._log.partition(topic, partition)
        return Bounds(part.begin, part.end)

    def reader(self, topic: str, partition: int, offset: int) -> FakeReader:
        return FakeReader(self._log, self._process, topic, partition, offset)

    async def append(self, topic: str, partition: int, records: Sequence[Outgoing]) -> int:
        await self._process.pass_door()
        part = self._log.partition(topic, partition)
        for record in records:
            if len(record.value) > self._log.max_record:
                raise InputError(f"a record of {len(record.value)} bytes, over {self._log.max_record}")
        if not records:
            return part.end
        flight = _Append(self._log, self._process.name, topic, partition, list(records))
        return await self._process.outcome(flight.answer, flight.abandon)

    async def _pause(self) -> None:
        await self._process.pass_door()
        await asyncio.sleep(self._log.world.delay(self._log.rng))
        await self._process.pass_door()


class _Append:
    """A batch on its way into the log, and the acknowledgement on its way back."""

    def __init__(
        self, log: FakeLog, who: str, topic: str, partition: int, records: Sequence[Outgoing]
    ) -> None:
        self._log, self._who = log, who
        self._topic, self._partition, self._records = topic, partition, records
        loop = log.world.loop
        self.answer: asyncio.Future[int] = loop.create_future()
        self._acknowledged = True
        self._dropped = False
        rates, rng = log.world.rates, log.rng
        wait = log.world.delay(rng)
        chance = rng.random()
        if log.is_away(topic) or chance < rates.log_append_lost:
            self._dropped = True
            self._note("append lost")
        elif chance < rates.log_append_lost + rates.log_ack_lost:
            self._acknowledged = False
            self._note("acknowledgement lost")
        elif chance < rates.log_append_lost + rates.log_ack_lost + rates.log_append_late:
            self._note("append late")
            loop.call_later(wait, self._fail)
            wait += rng.random() * 100.0 * rates.latency
        loop.call_later(wait, self._arrive)

    def _note(self, fault: str) -> None:
        where = f"{self._topic}.{self._partition}"
        self._log.world.trace(self._who, f"log: {fault}: {len(self._records)} records for {where}")

    def _arrive(self) -> None:
        if self._dropped:
            self._fail()
            return
        first = self._log.put(self._topic, self._partition, self._records)
        world = self._log.world
        if self._acknowledged:
            world.loop.call_later(world.delay(self._log.rng), self._return, first)
        else:
            self._fail()

    def _return(self, first: int) -> None:
        if not self.answer.done():
            self.answer.set_result(first)

    def _fail(self) -> None:
        if not self.answer.done():
            where = f"{self._topic}.{self._partition}"
            self.answer.set_exception(LogUnavailableError(f"{where}: no acknowledgement; outcome unknown"))

    def abandon(self) -> None:
        """The client is gone: what has not arrived is lost or arrives yet, by the seed."""
        self._dropped = self._dropped or self._log.rng.random() < 0.5


class FakeReader:
    """Sequential reader of one partition: implements `driftline.log.base.Reader`."""

    def __init__(self, log: FakeLog, process: Process, topic: str, partition: int, offset: int) -> None:
        self._log = log
        self._process = process
        self._topic = topic
        self._partition = partition
        self._position = offset
        self._closed = False

    @property
    def position(self) -> int:
        return self._position

    def seek(self, offset: int) -> None:
        self._position = offset

    async def close(self) -> None:
        self._closed = True

    async def read(self, *, max_bytes: int = 1 << 20, wait: float = 0.0) -> Sequence[Record]:
        await self._process.pass_door()
        assert not self._closed, f"{self._process.name} reads from a reader it has closed"
        log, rng, rates = self._log, self._log.rng, self._log.world.rates
        loop = log.world.loop
        await asyncio.sleep(log.world.delay(rng))
        if rng.random() < rates.log_read_failed:
            log.world.trace(self._process.name, f"log: read of {self._topic}.{self._partition} failed")
            await self._process.pass_door()
            raise LogUnavailableError(f"{self._topic}.{self._partition} cannot be reached")
        part = log.partition(self._topic, self._partition)
        deadline = loop.time() + wait
        while self._position == part.end and (left := deadline - loop.time()) > 0.0:
            await self._appended(part, left)
        await self._process.pass_door()
        if not part.begin <= self._position <= part.end:
            where = f"{self._topic}.{self._partition} holds [{part.begin}, {part.end})"
            raise OffsetError(f"{where}, not {self._position}")
        found = self._take(part, max_bytes)
        if len(found) > 1 and rng.random() < rates.log_read_short:
            found = found[: rng.randrange(1, len(found))]
        self._position += len(found)
        return found

    async def _appended(self, part: Partition, left: float) -> None:
        """Wait until something is appended, `left` seconds at most."""
        future: asyncio.Future[None] = self._log.world.loop.create_future()
        timer = self._log.world.loop.call_later(left, _give_up, future)
        part.waiting.append(future)
        try:
            await future
        finally:
            timer.cancel()
            if future in part.waiting:
                part.waiting.remove(future)

    def _take(self, part: Partition, max_bytes: int) -> list[Record]:
        first = self._position - part.begin
        size = 0
        for n in range(first, len(part.records)):
            size += len(part.records[n].value)
            if size >= max_bytes:
                return part.records[first : n + 1]
        return part.records[first:]


def _give_up(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)
