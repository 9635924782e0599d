"""The same as `Asker` for threads that wait: the sockets are the calling thread's own.

Invariant: to several servers everything is sent before the first reply is read, so that
their answers take as long as the slowest one. A connection with replies under way is
never used again.
"""

from __future__ import annotations

import contextlib
import os
from collections import deque
from collections.abc import Callable, Coroutine, Mapping, Sequence
from typing import Any, TypeVar, cast

import redis
from redis.exceptions import AuthenticationError, RedisError, ResponseError

from driftline.client.asker import Asker
from driftline.client.asking import Pipeline, Request, in_order, is_elsewhere, pipelines
from driftline.errors import ConfigError, StoreUnavailableError
from driftline.rows.address import redact
from driftline.rows.connection import EXCHANGE_TIMEOUT, Reply

_READ_SIZE = 1 << 18  # bytes taken from a socket at once: the replies of a usual read
_Result = TypeVar("_Result")
Take = Callable[[int, Sequence[Reply]], object]
_Run = Callable[[Coroutine[Any, Any, _Result]], _Result]


class SyncAsker:
    """Connections of threads by endpoint; where shards are is known by the `Asker` of the client's loop."""

    def __init__(self, asker: Asker, run: _Run[Any]) -> None:
        self._asker, self._run = asker, run
        self._pools: dict[str, redis.ConnectionPool] = {}
        # Idle connections, kept here: a pool's checks on the way out and in cost a tenth of a read of
        # 1,024 rows. One that broke meanwhile is noticed by the read, which is then done again.
        self._idle: dict[str, deque[redis.Connection]] = {}
        self._process = os.getpid()

    def ask(self, table: str, requests: Sequence[Request]) -> list[Reply]:
        """Return the replies to all requests, in their order. Raises StoreUnavailableError."""
        answers: dict[int, Sequence[Reply]] = {}
        self.deliver(table, requests, answers.__setitem__)
        return in_order(requests, answers)

    def deliver(self, table: str, requests: Sequence[Request], take: Take) -> None:
        """Hand each answer to `take` (shard, replies) as it arrives, while Redis works on the next ones.

        An answer may be handed over twice, where a connection broke in between: the later one counts.
        Raises StoreUnavailableError, and what `take` raises.
        """
        if lost := self._deliver(table, requests, take):
            self._run(self._asker.servers.forget(table, lost))
            if lost := self._deliver(table, [each for each in requests if each.shard in lost], take):
                raise StoreUnavailableError(f"shard {table}:{lost[0]} is changing servers")

    def close(self) -> None:
        """Close all connections that are not in use."""
        for endpoint in list(self._idle):
            self._close_idle(endpoint)

    def _close_idle(self, endpoint: str) -> None:
        with contextlib.suppress(KeyError, IndexError):  # IndexError: all are closed
            while True:
                self._idle[endpoint].pop().disconnect()  # type: ignore[no-untyped-call]

    def _deliver(self, table: str, requests: Sequence[Request], take: Take) -> list[int]:
        """Return the shards that are elsewhere; all others were taken."""
        if not requests:
            return []
        shards = [each.shard for each in requests]
        homes = self._asker.servers.known(table, shards)
        if homes is None:
            homes = self._run(self._asker.locate(table, shards))
        parts = pipelines(requests, homes)
        try:
            return self._exchange(parts, take)
        except StoreUnavailableError:
            for endpoint in parts:
                self._close_idle(endpoint)
        try:
            return self._exchange(
                parts, take
            )  # the connections may have been idle through a restart of Redis
        except StoreUnavailableError:
            self._run(self._asker.lost(table, shards))
            raise

    def _exchange(self, parts: Mapping[str, Pipeline], take: Take) -> list[int]:
        sent: list[tuple[str, redis.Connection, Pipeline]] = []
        elsewhere: list[int] = []
        whole = False
        endpoint = next(iter(parts))
        try:
            for endpoint, part in parts.items():
                connection = self._connection(endpoint)
                sent.append((endpoint, connection, part))
                connection.send_packed_command([b"".join(part.packed)], check_health=False)  # type: ignore[no-untyped-call]
            for endpoint, connection, part in sent:  # noqa: B007 - named in the error
                for request in part.requests:
                    replies = [_read(connection) for _ in range(request.replies)]
                    if is_elsewhere(replies):
                        elsewhere.append(request.shard)
                    else:
                        take(request.shard, replies)
            whole = True
            return elsewhere
        except AuthenticationError as error:
            raise ConfigError(f"Redis at {redact(endpoint)} refuses the login: {error}") from None
        except (RedisError, OSError) as error:
            raise StoreUnavailableError(f"Redis at {redact(endpoint)}: {error}") from error
        finally:
            for each, connection, _ in sent:
                if whole:
                    self._idle.setdefault(each, deque()).append(connection)
                else:
                    connection.disconnect()  # type: ignore[no-untyped-call]  # replies may be under way

    def _connection(self, endpoint: str) -> redis.Connection:
        if os.getpid() != self._process:  # forked: the sockets are the parent's
            self._pools, self._idle, self._process = {}, {}, os.getpid()
        try:
            return self._idle[endpoint].pop()
        except LookupError:  # none yet, or all in use
            pass
        pool = self._pools.get(endpoint)
        if pool is None:
            pool = self._pools[endpoint] = redis.ConnectionPool.from_url(
                endpoint,
                protocol=2,
                socket_connect_timeout=5,
                socket_timeout=EXCHANGE_TIMEOUT,
                socket_read_size=_READ_SIZE,
                max_connections=1
                << 31,  # it counts those it made, also those long closed; the default is 100
            )
        # connects when it first sends
        return cast(redis.Connection, pool.make_connection())


def _read(connection: redis.Connection) -> Reply:
    try:
        reply: Reply = connection.read_response(disconnect_on_error=False)
    except ResponseError as error:
        return error
    return reply
