"""Tells the control topic what happened, once as far as this process knows.

Invariant: a fact that was told in the last KNOWN events is not told again; one that a crash kept
from being told is told by whoever finds it in the store.
"""

from __future__ import annotations

import asyncio
import logging

from driftline.control import ControlEvent, ControlTopic, event_id
from driftline.errors import RetryError

_logger = logging.getLogger(__name__)
KNOWN = 4096
_BACK_OFF = 0.5


class Announcer:
    """The control topic as one instance of a service writes it."""

    def __init__(self, topic: ControlTopic) -> None:
        self._topic = topic
        self._known: dict[str, None] = {}
        self.told = 0

    def note(self, name: str) -> None:
        """An event is in the topic: ours or another's."""
        self._known[name] = None
        while len(self._known) > KNOWN:
            del self._known[next(iter(self._known))]

    async def catch_up(self) -> None:
        """Learn what has been told lately."""
        end = await self._topic.end()
        reader = await self._topic.reader(end - KNOWN)
        try:
            while reader.position < end:
                for told in await reader.read(wait=1.0):
                    self.note(told.id)
        finally:
            await reader.close()

    async def tell(self, event: ControlEvent) -> None:
        """Return when the event is in the topic, however long it takes."""
        name = event_id(event)
        if name in self._known:
            return
        while True:
            try:
                await self._topic.tell(event)
            except RetryError as error:
                _logger.warning("control topic: %s", error)
                await asyncio.sleep(_BACK_OFF)
                continue
            self.note(name)
            self.told += 1
            return
