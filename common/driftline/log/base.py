"""The log as driftline uses it: partitioned, append-only, offsets dense and stable.

Contract of every backend, held by tests/conformance: records of one partition
are read in the order of their offsets; a batch is appended whole, in order and
contiguously; an append that returned is durable over kill -9 of any process;
`timestamp` is the log's own append time in milliseconds and never goes back
within a partition. Offsets name the next message: `Bounds.end` is the offset
that the next append will get.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Protocol, Self

Headers = tuple[tuple[str, bytes], ...]


@dataclass(frozen=True, slots=True)
class Record:
    """One record as it stands in the log."""

    offset: int
    timestamp: int  # ms, log append time
    key: bytes | None
    value: bytes
    headers: Headers = ()


@dataclass(frozen=True, slots=True)
class Outgoing:
    """One record on its way into the log."""

    value: bytes
    key: bytes | None = None
    headers: Headers = ()


@dataclass(frozen=True, slots=True)
class Bounds:
    """Offsets a partition holds: [begin, end)."""

    begin: int
    end: int


class Reader(Protocol):
    """Sequential reader of one partition; several may read the same one."""

    async def read(self, *, max_bytes: int = 1 << 20, wait: float = 0.0) -> Sequence[Record]:
        """Return the next records in order, at least one unless none came within `wait` seconds.

        Stops after the record that reaches `max_bytes`. Raises OffsetError when the next
        offset is no longer (or not yet) in the log, LogUnavailableError when it cannot be reached.
        """
        ...

    def seek(self, offset: int) -> None:
        """Read on from `offset`."""
        ...

    @property
    def position(self) -> int:
        """Offset of the next record to be read."""
        ...

    async def close(self) -> None: ...


class Log(Protocol):
    """A log opened by URL: see `driftline.log.open_log`."""

    async def start(self) -> None: ...

    async def close(self) -> None: ...

    async def __aenter__(self) -> Self: ...

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...

    async def topics(self) -> Mapping[str, int]:
        """Return the partition count of every topic."""
        ...

    async def create_topic(self, topic: str, partitions: int) -> None:
        """Make sure `topic` exists with `partitions`; idempotent.

        Raises PartitionCountError when it exists with another count.
        """
        ...

    async def append(self, topic: str, partition: int, records: Sequence[Outgoing]) -> int:
        """Append `records` as ONE batch, in order, and return the offset of the first once durable.

        Raises LogUnavailableError when the outcome is unknown (the records may be in the log),
        UnknownTopicError when there is no such partition, InputError for a record over the size limit.
        """
        ...

    async def bounds(self, topic: str, partition: int) -> Bounds:
        """Return the offsets that the partition holds now."""
        ...

    def reader(self, topic: str, partition: int, offset: int) -> Reader:
        """Return a reader whose first record is the one at `offset`."""
        ...
