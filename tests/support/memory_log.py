"""A log in memory whose appends fail on order.

Invariant: the contract of `driftline.log.base` on one event loop, with faults only
where a test put them into `faults`.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict, deque
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Self

from driftline.errors import OffsetError, PartitionCountError, UnknownTopicError
from driftline.log.base import Bounds, Outgoing, Record


class MemoryLog:
    """Topics as lists of records; `faults` are raised by the next appends, True after they happened."""

    def __init__(self) -> None:
        self.partitions: dict[str, list[list[Record]]] = {}
        self.begins: dict[tuple[str, int], int] = defaultdict(int)
        self.faults: deque[tuple[Exception, bool]] = deque()
        self.batches: list[tuple[str, int, int]] = []  # topic, partition, records
        self.gate = asyncio.Event()  # appends wait while it is clear
        self.gate.set()
        self._news = asyncio.Condition()

    async def start(self) -> None: ...

    async def close(self) -> None: ...

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...

    async def topics(self) -> Mapping[str, int]:
        return {name: len(parts) for name, parts in self.partitions.items()}

    async def create_topic(self, topic: str, partitions: int) -> None:
        known = self.partitions.setdefault(topic, [[] for _ in range(partitions)])
        if len(known) != partitions:
            raise PartitionCountError(f"{topic} has {len(known)} partitions")

    async def append(self, topic: str, partition: int, records: Sequence[Outgoing]) -> int:
        await self.gate.wait()
        if topic not in self.partitions or not 0 <= partition < len(self.partitions[topic]):
            raise UnknownTopicError(f"{topic}/{partition}")
        fault = self.faults.popleft() if self.faults else None
        if fault is not None and not fault[1]:
            raise fault[0]
        part = self.partitions[topic][partition]
        first = len(part)
        for item in records:
            offset = len(part)
            part.append(Record(offset, 1_000_000 + offset, item.key, item.value, item.headers))
        self.batches.append((topic, partition, len(records)))
        async with self._news:
            self._news.notify_all()
        if fault is not None:
            raise fault[0]
        return first

    def put(self, topic: str, partition: int, records: Sequence[Record]) -> None:
        """Put records as they are, for a test that wrote them itself."""
        self.partitions[topic][partition].extend(records)

    def values(self, topic: str, partition: int = 0) -> list[bytes]:
        return [record.value for record in self.partitions[topic][partition]]

    async def bounds(self, topic: str, partition: int) -> Bounds:
        return Bounds(self.begins[topic, partition], len(self.partitions[topic][partition]))

    def reader(self, topic: str, partition: int, offset: int) -> MemoryReader:
        return MemoryReader(self, topic, partition, offset)

    async def wait_news(self, seconds: float) -> None:
        try:
            async with asyncio.timeout(seconds), self._news:
                await self._news.wait()
        except TimeoutError:
            pass


class MemoryReader:
    """Reads one partition."""

    def __init__(self, log: MemoryLog, topic: str, partition: int, offset: int) -> None:
        self._log, self._topic, self._partition, self._offset = log, topic, partition, offset

    @property
    def position(self) -> int:
        return self._offset

    def seek(self, offset: int) -> None:
        self._offset = offset

    async def read(self, *, max_bytes: int = 1 << 20, wait: float = 0.0) -> Sequence[Record]:
        part = self._log.partitions[self._topic][self._partition]
        if not self._log.begins[self._topic, self._partition] <= self._offset <= len(part):
            raise OffsetError(f"{self._topic}/{self._partition} does not hold offset {self._offset}")
        if self._offset == len(part) and wait:
            await self._log.wait_news(wait)
        found: list[Record] = []
        for item in part[self._offset :]:
            found.append(item)
            if sum(len(one.value) for one in found) >= max_bytes:
                break
        self._offset += len(found)
        return found

    async def close(self) -> None: ...
