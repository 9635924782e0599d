"""Waiting for what is away when a worker starts.

Invariant: what may pass is waited out, for ever, and told once in a while; what
no wait can mend ends the wait at once.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from itertools import chain, repeat
from typing import TypeVar

from driftline.errors import RetryError

T = TypeVar("T")

BACK_OFF = (0.1, 0.2, 0.5, 1.0, 2.0, 5.0)  # seconds between attempts, the last one for ever
TELL_EVERY = 30.0  # seconds
_logger = logging.getLogger(__name__)


async def patiently(what: str, attempt: Callable[[], Awaitable[T]]) -> T:
    """Return what `attempt` returns, called again while it raises RetryError.

    Anything else it raises, a ConfigError say, is raised at once.
    """
    loop = asyncio.get_running_loop()
    told: float | None = None
    for delay in chain(BACK_OFF, repeat(BACK_OFF[-1])):
        try:
            result = await attempt()
        except RetryError as error:
            if told is None or loop.time() - told >= TELL_EVERY:
                _logger.warning("%s: waiting: %s", what, error)
                told = loop.time()
            await asyncio.sleep(delay)
        else:
            if told is not None:
                _logger.info("%s: done", what)
            return result
    raise AssertionError("unreachable: delays never end")
