"""Publishes what was committed: row states on the updates topic, behind the commits.

Invariant: `published` is an offset below which every record's states are
acknowledged. It never passes a commit, and it moves in the order of commits.
"""

from __future__ import annotations

import asyncio
from collections import deque
from dataclasses import dataclass

from driftline import topics
from driftline.frames.headers import cloud_event
from driftline.frames.markers import PART_BYTES, split_marker
from driftline.frames.states import Marker, States, write_marker, write_states
from driftline.log import Log, Outgoing
from driftline_services.aggregator.appending import append

FRAME_BYTES = 256 * 1024
"""Size of a states frame aimed at: small enough for a slow reader, large enough to cost little."""


@dataclass(frozen=True, slots=True)
class _Committed:
    states: States
    next: int
    log_bytes: int  # of gradients log up to `next`, counted from the start of this owner


class Updates:
    """The updates topic as one shard's owner writes it."""

    def __init__(
        self, log: Log, table: str, shard: int, published: int, part_bytes: int = PART_BYTES
    ) -> None:
        self._log, self._topic, self._table, self._shard = log, topics.updates(table), table, shard
        self._waiting: deque[_Committed] = deque()
        self._news = asyncio.Event()
        self._progress = asyncio.Condition()
        self._bytes, self._part_bytes = 0, part_bytes
        self.published = published

    def offer(self, states: States, next_offset: int, log_bytes: int) -> None:
        """Publish `states` after those offered before; returns at once."""
        self._waiting.append(_Committed(states, next_offset, log_bytes))
        self._news.set()

    async def run(self) -> None:
        """Publish what is offered, for ever."""
        while True:
            await self._news.wait()
            self._news.clear()
            while self._waiting:
                batch = list(self._waiting)
                frames = [frame for item in batch for frame in state_frames(item.states)]
                if frames:
                    await append(self._log, self._topic, self._shard, frames)
                for _ in batch:
                    self._waiting.popleft()
                await self._advance(batch[-1].next, batch[-1].log_bytes)

    async def write(self, states: States) -> None:
        """Publish `states` now and return when they are acknowledged."""
        if frames := state_frames(states):
            await append(self._log, self._topic, self._shard, frames)

    async def mark(self, marker: Marker) -> None:
        """Publish an op's marker, in parts where it is large, and return when all are acknowledged."""
        records = []
        for part in split_marker(marker, self._part_bytes):
            event_id = f"op/{marker.op}/{self._shard}/{part.part}"
            headers = cloud_event(marker.kind, f"table/{self._table}", event_id)
            records.append(Outgoing(write_marker(part), None, headers))
        await append(self._log, self._topic, self._shard, records)

    async def jump(self, offset: int) -> None:
        """Note that everything below `offset` is acknowledged."""
        await self._advance(offset, self._bytes)

    async def wait_for(self, offset: int) -> None:
        """Return once `published` has reached `offset`."""
        async with self._progress:
            await self._progress.wait_for(lambda: self.published >= offset)

    async def wait_for_room(self, log_bytes: int, window: int) -> None:
        """Return once publishing is at most `window` bytes of gradients log behind `log_bytes`."""
        async with self._progress:
            await self._progress.wait_for(lambda: not self._waiting or log_bytes - self._bytes <= window)

    async def _advance(self, offset: int, log_bytes: int) -> None:
        async with self._progress:
            self.published, self._bytes = max(self.published, offset), log_bytes
            self._progress.notify_all()


def state_frames(states: States) -> list[Outgoing]:
    """Return `states` as records of about FRAME_BYTES."""
    if not len(states):
        return []
    row = 8 + 4 + 8 + 1 + states.rows[0].nbytes + states.state[0].nbytes
    step = max(1, FRAME_BYTES // row)
    headers = cloud_event("state", f"table/{states.table}", f"state/{states.shard}")
    return [
        Outgoing(write_states(states.part(start, start + step)), None, headers)
        for start in range(0, len(states), step)
    ]
