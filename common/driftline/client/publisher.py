"""Sends frames to the log in order, again and again until they are acknowledged.

Invariant: per partition there is one append in flight, and a later frame never
overtakes a failed one: after any failure the same frames go first. What is sent
twice the shard recognises by its sequence number.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable
from itertools import chain, repeat

from driftline.errors import InputError, LogUnavailableError
from driftline.log import MAX_BATCH_BYTES, Log, Outgoing, record_size

_BACK_OFF = (0.02, 0.1, 0.5, 1.0)
_logger = logging.getLogger(__name__)


class _Lane:
    """Frames waiting for one partition."""

    def __init__(self) -> None:
        self.waiting: deque[tuple[Outgoing, int]] = deque()
        self.sender: asyncio.Task[None] | None = None
        self.queued = 0  # frames ever queued
        self.sent = 0  # of them acknowledged
        self.acknowledged = 0  # offset behind this client's last acknowledged frame


class Publisher:
    """Queues of one client; lives in one event loop."""

    def __init__(self, log: Log, budget: int) -> None:
        self._log, self._budget = log, budget
        self._lanes: dict[tuple[str, int], _Lane] = {}
        self._queued = 0
        self._turn = asyncio.Lock()  # first come, first served
        self._changed = asyncio.Condition()
        self._error: Exception | None = None

    async def put(self, topic: str, make: Callable[[], list[tuple[int, Outgoing]]]) -> None:
        """Wait for room in the byte budget, then make frames and queue all of them for their partitions.

        Whoever calls first goes first, and frames are made (and take their sequence numbers) only
        once they can be queued without a wait: so no later number overtakes an earlier one, and a
        call that is cancelled has sent nothing. The budget is exceeded by at most one call's frames.
        Raises what `make` raises, and what made an earlier append impossible.
        """
        async with self._turn:
            async with self._changed:
                await self._changed.wait_for(self._has_room)
                self._raise()
            for partition, frame in make():
                size = record_size(frame)
                self._queued += size
                lane = self._lanes.setdefault((topic, partition), _Lane())
                lane.waiting.append((frame, size))
                lane.queued += 1
                if lane.sender is None:
                    lane.sender = asyncio.create_task(self._send(topic, partition, lane))

    async def flush(self) -> None:
        """Return when everything queued before this call is acknowledged, whatever is queued after."""
        wanted = [(lane, lane.queued) for lane in self._lanes.values()]
        async with self._changed:
            await self._changed.wait_for(
                lambda: self._error is not None or all(lane.sent >= count for lane, count in wanted)
            )
            self._raise()

    def acknowledged(self, topic: str) -> dict[int, int]:
        """Return, per partition this client has sent to, the offset behind its last acknowledged frame."""
        lanes = list(self._lanes.items())
        return {partition: lane.acknowledged for (name, partition), lane in lanes if name == topic}

    async def close(self) -> None:
        """Stop sending; call `flush` first if what is queued matters."""
        senders = [lane.sender for lane in self._lanes.values() if lane.sender]
        for sender in senders:
            sender.cancel()
        await asyncio.gather(*senders, return_exceptions=True)

    async def _send(self, topic: str, partition: int, lane: _Lane) -> None:
        try:
            while lane.waiting:
                batch = _batch(lane.waiting)
                first = await self._append(topic, partition, [frame for frame, _ in batch])
                lane.acknowledged = first + len(batch)
                lane.sent += len(batch)
                for _ in batch:
                    lane.waiting.popleft()
                async with self._changed:
                    self._queued -= sum(size for _, size in batch)
                    self._changed.notify_all()
        except Exception as error:  # noqa: BLE001 - handed to the next call of the user
            async with self._changed:
                self._error = error
                self._changed.notify_all()
        finally:
            lane.sender = None

    async def _append(self, topic: str, partition: int, frames: list[Outgoing]) -> int:
        for delay in chain(_BACK_OFF, repeat(_BACK_OFF[-1])):
            try:
                return await self._log.append(topic, partition, frames)
            except LogUnavailableError as error:
                _logger.warning(
                    "push to %s/%d not acknowledged, sending it again: %s", topic, partition, error
                )
                await asyncio.sleep(delay)
        raise AssertionError("unreachable: delays never end")

    def _has_room(self) -> bool:
        return self._error is not None or self._queued < self._budget

    def _raise(self) -> None:
        if self._error is not None:
            raise InputError(f"an earlier push could not be sent: {self._error}") from self._error


def _batch(waiting: deque[tuple[Outgoing, int]]) -> list[tuple[Outgoing, int]]:
    batch: list[tuple[Outgoing, int]] = []
    total = 0
    for item in waiting:
        total += item[1]
        if batch and total > MAX_BATCH_BYTES:
            break
        batch.append(item)
    return batch
