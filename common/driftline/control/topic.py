"""The control topic of a deployment, as one group's services and clients use it.

Invariant: a reader sees the signed events of its group only, in their order; a record that is
none of them is passed over, and counted.
"""

from __future__ import annotations

from collections.abc import Sequence

from driftline import clock, topics
from driftline.control.events import ControlEvent
from driftline.control.wire import Told, read_control, write_control
from driftline.errors import FrameError
from driftline.frames.headers import Keyring
from driftline.log import Log


class ControlTopic:
    """Tells and reads control events of one group."""

    def __init__(self, log: Log, group: str, keyring: Keyring, now: clock.Clock = clock.system) -> None:
        self._log, self._group, self._keyring, self._now = log, group, keyring, now

    async def create(self) -> None:
        """Make sure that the topic exists."""
        await self._log.create_topic(topics.control(), 1)

    async def end(self) -> int:
        """Return the offset of the next event."""
        return (await self._log.bounds(topics.control(), 0)).end

    async def tell(self, *events: ControlEvent) -> int:
        """Append events and return the offset of the first. Raises LogUnavailableError."""
        records = [write_control(self._group, event, self._keyring, self._now()) for event in events]
        return await self._log.append(topics.control(), 0, records)

    async def reader(self, start: int) -> ControlReader:
        """Return a reader from offset `start`, or from the first that the log still has."""
        bounds = await self._log.bounds(topics.control(), 0)
        first = min(max(start, bounds.begin), bounds.end)
        return ControlReader(self._log, self._group, self._keyring, first)


class ControlReader:
    """Reads the events of one group in order."""

    def __init__(self, log: Log, group: str, keyring: Keyring, start: int) -> None:
        self._reader = log.reader(topics.control(), 0, start)
        self._group, self._keyring = group, keyring
        self.passed_over = 0  # records that are no event of this deployment

    @property
    def position(self) -> int:
        """Offset of the next record."""
        return self._reader.position

    async def read(self, wait: float = 0.0) -> Sequence[Told]:
        """Return the next events; none if there are none within `wait` seconds."""
        found = []
        for record in await self._reader.read(wait=wait):
            try:
                told = read_control(record, self._keyring)
            except FrameError:
                self.passed_over += 1
                continue
            if told.group == self._group:
                found.append(told)
        return found

    async def close(self) -> None:
        """Stop reading."""
        await self._reader.close()
