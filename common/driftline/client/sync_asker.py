"""The same as `Asker` for threads that wait: the sockets are the calling thread's own.

Invariant: to several servers everything is sent before the first reply is read, so that
their answers take as long as the slowest one. A connection with replies under way is
never used again.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Mapping, Sequence
from typing import Any, TypeVar

import redis
from redis.exceptions import AuthenticationError, RedisError, ResponseError

from driftline.client.asker import Asker
from driftline.client.asking import Pipeline, Request, elsewhere, in_order, pipelines
from driftline.errors import ConfigError, StoreUnavailableError
from driftline.rows.address import redact
from driftline.rows.connection import EXCHANGE_TIMEOUT, Reply

_Result = TypeVar("_Result")
_Run = Callable[[Coroutine[Any, Any, _Result]], _Result]


class SyncAsker:
    """Connections of threads by endpoint; where shards are is known by the `Asker` of the client's loop."""

    def __init__(self, asker: Asker, run: _Run[Any]) -> None:
        self._asker, self._run = asker, run
        self._pools: dict[str, redis.ConnectionPool] = {}

    def ask(self, table: str, requests: Sequence[Request]) -> list[Reply]:
        """Return the replies to all requests, in their order. Raises StoreUnavailableError."""
        answers = self._answers(table, requests)
        if lost := elsewhere(answers):
            self._run(self._asker.servers.forget(table, lost))
            answers |= self._answers(table, [each for each in requests if each.shard in lost])
            if lost := elsewhere(answers):
                raise StoreUnavailableError(f"shard {table}:{lost[0]} is changing servers")
        return in_order(requests, answers)

    def close(self) -> None:
        """Close all connections."""
        for pool in self._pools.values():
            pool.disconnect()

    def _answers(self, table: str, requests: Sequence[Request]) -> dict[int, list[Reply]]:
        if not requests:
            return {}
        shards = [each.shard for each in requests]
        homes = self._asker.servers.known(table, shards)
        if homes is None:
            homes = self._run(self._asker.locate(table, shards))
        parts = pipelines(requests, homes)
        try:
            return self._exchange(parts)
        except StoreUnavailableError:
            for endpoint in parts:
                self._pool(endpoint).disconnect(inuse_connections=False)
        try:
            return self._exchange(parts)  # the connections may have been idle through a restart of Redis
        except StoreUnavailableError:
            self._run(self._asker.lost(table, shards))
            raise

    def _exchange(self, parts: Mapping[str, Pipeline]) -> dict[int, list[Reply]]:
        sent: list[tuple[str, redis.Connection, Pipeline]] = []
        answers: dict[int, list[Reply]] = {}
        whole = False
        endpoint = next(iter(parts))
        try:
            for endpoint, part in parts.items():
                connection = self._pool(endpoint).get_connection()
                sent.append((endpoint, connection, part))
                connection.send_packed_command([b"".join(part.packed)], check_health=False)  # type: ignore[no-untyped-call]
            for endpoint, connection, part in sent:  # noqa: B007 - named in the error
                answers |= part.answers([_read(connection) for _ in range(part.replies)])
            whole = True
            return answers
        except AuthenticationError as error:
            raise ConfigError(f"Redis at {redact(endpoint)} refuses the login: {error}") from None
        except (RedisError, OSError) as error:
            raise StoreUnavailableError(f"Redis at {redact(endpoint)}: {error}") from error
        finally:
            for each, connection, _ in sent:
                if not whole:
                    connection.disconnect()  # type: ignore[no-untyped-call]  # replies may be under way
                self._pool(each).release(connection)

    def _pool(self, endpoint: str) -> redis.ConnectionPool:
        pool = self._pools.get(endpoint)
        if pool is None:
            made = redis.ConnectionPool.from_url(
                endpoint, protocol=2, socket_connect_timeout=5, socket_timeout=EXCHANGE_TIMEOUT
            )
            pool = self._pools.setdefault(endpoint, made)
        return pool


def _read(connection: redis.Connection) -> Reply:
    try:
        reply: Reply = connection.read_response(disconnect_on_error=False)
    except ResponseError as error:
        return error
    return reply
