"""Publishes what was committed: row states on the updates topic, behind the commits.

Invariants: `published` is an offset below which every record's states are
acknowledged. It never passes a commit, and it moves in the order of commits. What is
held is counted in bytes of states: a small frame may name many wide rows.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import islice

from driftline import topics
from driftline.frames.events import BARRIER, OPS, RESTORE, Op
from driftline.frames.headers import cloud_event
from driftline.frames.markers import PART_BYTES, split_marker
from driftline.frames.states import Marker, States, write_marker, write_states
from driftline.ids import lsn
from driftline.log import Log, Outgoing
from driftline.shard.machine import Shard
from driftline.shard.tally import Tally
from driftline_services.aggregator.appending import append

FRAME_BYTES = 256 * 1024
"""Size of a states frame aimed at: small enough for a slow reader, large enough to cost little."""

APPEND_BYTES = 4 << 20
"""States turned into frames at a time."""


@dataclass(frozen=True, slots=True)
class _Committed:
    states: States
    next: int


class Updates:
    """The updates topic as one shard's owner writes it."""

    def __init__(
        self, log: Log, table: str, shard: int, published: int, part_bytes: int = PART_BYTES
    ) -> None:
        self._log, self._topic, self._table, self._shard = log, topics.updates(table), table, shard
        self._waiting: deque[_Committed] = deque()
        self._news = asyncio.Event()
        self._progress = asyncio.Condition()
        self._part_bytes = part_bytes
        self._held = 0  # bytes of states committed, not acknowledged
        self.published = published
        self.tally = Tally()  # of the gradients that are applied and not yet told of

    def offer(self, states: States, next_offset: int) -> None:
        """Publish `states` after those offered before; returns at once."""
        self._waiting.append(_Committed(states, next_offset))
        self._held += states_bytes(states)
        self._news.set()

    async def run(self) -> None:
        """Publish what is offered, for ever."""
        while True:
            await self._news.wait()
            self._news.clear()
            while self._waiting:
                batch = self._next_batch()
                await self._append(item.states for item in batch)
                for item in batch:
                    self._waiting.popleft()
                    self._held -= states_bytes(item.states)
                await self._advance(batch[-1].next)

    async def write(self, states: States) -> None:
        """Publish `states` now and return when they are acknowledged."""
        await self._append([states])

    async def mark(self, marker: Marker) -> None:
        """Publish an op's marker, in parts where it is large, and return when all are acknowledged.

        A barrier's tells what each producer has sent since the last one, as far as this owner knows.
        """
        if marker.kind == BARRIER:
            marker = replace(marker, body={**marker.body, "gradients": self.tally.told()})
        records = []
        for part in split_marker(marker, self._part_bytes):
            about = "op" if marker.kind in OPS else marker.kind
            event_id = f"{about}/{marker.op}/{self._shard}/{part.part}"
            headers = cloud_event(marker.kind, f"table/{self._table}", event_id)
            records.append(Outgoing(write_marker(part), None, headers))
        await append(self._log, self._topic, self._shard, records)
        if marker.kind == BARRIER:
            self.tally = Tally(lsn(int(str(marker.position["gen"])), int(str(marker.position["next"]))))

    async def jump(self, offset: int) -> None:
        """Note that everything below `offset` is acknowledged."""
        await self._advance(offset)

    async def wait_for(self, offset: int) -> None:
        """Return once `published` has reached `offset`."""
        async with self._progress:
            await self._progress.wait_for(lambda: self.published >= offset)

    async def wait_for_room(self, window: int) -> None:
        """Return once at most `window` bytes of states are committed and not acknowledged."""
        async with self._progress:
            await self._progress.wait_for(lambda: self._held <= window)

    @property
    def held(self) -> int:
        """Bytes of states that are committed and not acknowledged."""
        return self._held

    def _next_batch(self) -> list[_Committed]:
        """Return as many of those that wait as make APPEND_BYTES, at least one."""
        batch, size = [], 0
        for item in self._waiting:
            batch.append(item)
            size += states_bytes(item.states)
            if size >= APPEND_BYTES:
                break
        return batch

    async def _append(self, states: Iterable[States]) -> None:
        frames = (frame for each in states for frame in state_frames(each))
        while some := list(islice(frames, APPEND_BYTES // FRAME_BYTES)):
            await append(self._log, self._topic, self._shard, some)

    async def _advance(self, offset: int) -> None:
        async with self._progress:
            self.published = max(self.published, offset)
            self._progress.notify_all()


def marker_of(shard: Shard, op: Op, *, restored: bool) -> Marker:
    """Return the marker of an op that `shard` has just applied; of a restore, whether it took effect."""
    position, tensors = shard.position.snapshot()
    body = {**op.body, "restored": restored} if op.kind == RESTORE else op.body
    return Marker(op.kind, shard.table, shard.shard, op.origin.seq, body, position, tensors)


def states_bytes(states: States) -> int:
    """Return the bytes that `states` take, in memory as on the wire, without the headers of frames."""
    columns = (states.ids, states.ordinals, states.lsn, states.rows, states.state, states.flags)
    return sum(int(column.nbytes) for column in columns)


def state_frames(states: States) -> Iterator[Outgoing]:
    """Yield `states` as records of about FRAME_BYTES."""
    if not len(states):
        return
    step = max(1, FRAME_BYTES * len(states) // states_bytes(states))
    headers = cloud_event("state", f"table/{states.table}", f"state/{states.shard}")
    for start in range(0, len(states), step):
        yield Outgoing(write_states(states.part(start, start + step)), None, headers)
