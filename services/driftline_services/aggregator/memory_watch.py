"""Refuses Redis servers that would evict rows: at the start, and when one turns out later to be such.

Invariant: a server that does not answer is not judged; it is asked again until it is.
A setting changed at run time is noticed within a minute.
"""

from __future__ import annotations

import asyncio
import logging

from driftline.errors import StoreUnavailableError
from driftline.rows.memory import check_eviction
from driftline.rows.servers import Servers

_logger = logging.getLogger(__name__)
_ABSENT, _EVERY = 2.0, 60.0
_START = 5.0


async def check_servers(servers: Servers) -> bool:
    """Return whether every server answers and evicts nothing. Raises ConfigError for one that evicts."""
    judged = True
    for name in servers.names:
        try:
            async with asyncio.timeout(_START):
                await check_eviction(servers, name)
        except (StoreUnavailableError, TimeoutError) as error:
            _logger.warning("Redis server %s does not answer yet: %s", name, error)
            judged = False
    return judged


async def watch_servers(servers: Servers) -> None:
    """Go on checking, for ever. Raises ConfigError for a server that evicts."""
    judged = True
    while True:
        await asyncio.sleep(_EVERY if judged else _ABSENT)
        judged = await check_servers(servers)
