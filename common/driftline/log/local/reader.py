"""Sequential reader of one partition of the embedded log.

Invariant: `position` only moves past records that were returned, or by `seek`; the
partition's file is not touched while its head says that there is nothing new.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Protocol

from driftline.errors import InputError, StateError
from driftline.log.base import Record
from driftline.log.local.store import Chunk


class Source(Protocol):
    """What a reader needs of its log."""

    async def fetch(self, topic: str, partition: int, offset: int, max_bytes: int) -> Chunk:
        """Read records from `offset` on; see `store.read`."""
        ...

    async def wait_for_news(self, topic: str, positions: dict[int, int], wait: float) -> bool:
        """Wait until a partition has records at or past its offset."""
        ...


class LocalReader:
    """Reader over `LocalLog.fetch`; see `driftline.log.base.Reader`."""

    def __init__(self, source: Source, topic: str, partition: int, offset: int) -> None:
        self._source = source
        self._topic = topic
        self._partition = partition
        self._closed = False
        self._at_end = False  # the last fetch saw the partition's end at `_position`
        self._position = 0
        self.seek(offset)

    @property
    def position(self) -> int:
        return self._position

    def seek(self, offset: int) -> None:
        if offset < 0:
            raise InputError(f"{self._topic}[{self._partition}]: offset {offset} is negative")
        self._position = offset
        self._at_end = False

    async def read(self, *, max_bytes: int = 1 << 20, wait: float = 0.0) -> Sequence[Record]:
        if self._closed:
            raise StateError(f"{self._topic}[{self._partition}]: this reader is closed")
        deadline = time.monotonic() + wait
        # Without a wait the answer must not rest on the hint, which may lag.
        must_look = wait <= 0 or not self._at_end
        while True:
            if must_look:
                records = await self._fetch(max_bytes)
                if records:
                    return records
            left = deadline - time.monotonic()
            if left <= 0:
                return ()
            must_look = await self._source.wait_for_news(self._topic, {self._partition: self._position}, left)

    async def close(self) -> None:
        self._closed = True

    async def _fetch(self, max_bytes: int) -> Sequence[Record]:
        while True:
            start = self._position
            chunk = await self._source.fetch(self._topic, self._partition, start, max_bytes)
            if self._position == start:  # else: a seek meanwhile, these are not wanted any more
                self._position += len(chunk.records)
                self._at_end = self._position == chunk.end
                return chunk.records
