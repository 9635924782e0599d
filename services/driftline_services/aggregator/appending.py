"""Appends that do not give up: the log is down for a while, the shard waits.

Invariant: when `append` returns, the records are in the log at least once. A
reader tells repeats by their LSN (states) or by partition and offset (dead letters).
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from itertools import chain, repeat

from driftline.errors import LogUnavailableError, UnknownTopicError
from driftline.log import Log, Outgoing, split

_BACK_OFF = (0.02, 0.1, 0.5, 1.0)
_logger = logging.getLogger(__name__)


async def append(log: Log, topic: str, partition: int, records: Sequence[Outgoing]) -> None:
    """Append `records` in order, however long it takes."""
    for batch in split(records):
        for delay in chain(_BACK_OFF, repeat(_BACK_OFF[-1])):
            try:
                await log.append(topic, partition, batch)
                break
            except (LogUnavailableError, UnknownTopicError) as error:  # a topic may be away for a while
                _logger.warning("append to %s/%d failed, trying again: %s", topic, partition, error)
                await asyncio.sleep(delay)
