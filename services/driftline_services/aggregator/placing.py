"""On which servers the shards of a new table are born.

Invariant: the choice is made once, by the router, and written into the frames of the
table's spec op: whoever takes a shard that is nowhere yet reads it there.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence

from driftline.errors import FrameError
from driftline.frames.reasons import Reason
from driftline.rows.memory import used_memory
from driftline.rows.placement import LEAST_STORED, check_policy, equal, least_stored
from driftline.rows.servers import Servers

_logger = logging.getLogger(__name__)
_RETRY = 1.0


class Placement:
    """The deployment's policy over its servers."""

    def __init__(self, servers: Servers, policy: str) -> None:
        self._servers, self._policy = servers, check_policy(policy)

    async def servers_for(self, shards: int) -> Sequence[str] | None:
        """Return a server per shard; None where there is only one to choose. Waits while none answers."""
        if self._servers.is_cluster:
            return None
        names = await self._servers.learn()
        if len(names) == 1:
            return None
        if self._policy != LEAST_STORED:
            return equal(shards, names)
        while not (used := await used_memory(self._servers)):
            _logger.warning("no Redis server tells how full it is; asking again")
            await asyncio.sleep(_RETRY)
        return least_stored(shards, used)

    async def check_target(self, server: object) -> None:
        """Raise FrameError unless a shard can be moved to `server`."""
        if self._servers.is_cluster:
            raise FrameError(
                Reason.BAD_OP, "a Redis Cluster places shards itself: redis-cli --cluster reshard"
            )
        if server not in self._servers.names:
            await self._servers.learn()
        if server not in self._servers.names:
            known = ", ".join(self._servers.names)
            raise FrameError(Reason.BAD_OP, f"no Redis server is named {server!r}; known are {known}")
