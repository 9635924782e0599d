"""The same as `Asker` for threads that wait: the sockets are the calling thread's own.

Invariant: to several servers everything is sent before the first reply is read, so that
their answers take as long as the slowest one. A connection with replies under way is
never used again.
"""

from __future__ import annotations

import contextlib
import functools
import os
from collections import deque
from collections.abc import Callable, Coroutine, Mapping, Sequence
from typing import Any, TypeVar, cast

import redis
from redis.exceptions import AuthenticationError, RedisError, ResponseError

from driftline.client.asker import Asker
from driftline.client.asking import Answer, Pipeline, Request, elsewhere, in_order, pipelines
from driftline.client.borrowing import borrow
from driftline.client.landing import Landing, OddReply
from driftline.errors import ConfigError, StoreUnavailableError
from driftline.rows.address import redact
from driftline.rows.connection import EXCHANGE_TIMEOUT, Reply

_KEPT = 1 << 24  # bytes of a buffer that is kept for the next read
_UNCOUNTED = 1 << 31  # a pool counts the connections it made, also those long closed, up to 100
_Result = TypeVar("_Result")
_Answer = TypeVar("_Answer", Reply, Answer)
_Read = Callable[[redis.Connection, Pipeline], Mapping[int, Sequence[_Answer]]]
Decode = Callable[[Sequence[Answer], bytes | bytearray], _Result]
_Run = Callable[[Coroutine[Any, Any, _Result]], _Result]


class SyncAsker:
    """Connections of threads by endpoint; where shards are is known by the `Asker` of the client's loop."""

    def __init__(self, asker: Asker, run: _Run[Any]) -> None:
        self._asker, self._run = asker, run
        self._pools: dict[str, redis.ConnectionPool] = {}
        # Idle connections, kept here: a pool's checks on the way out and in cost a tenth of a read of
        # 1,024 rows. One that broke meanwhile is noticed by the read, which is then done again.
        self._idle: dict[str, deque[redis.Connection]] = {}
        self._landings: dict[int, deque[Landing]] = {}  # by bytes of a value; none is in use
        self._process = os.getpid()

    def ask(self, table: str, requests: Sequence[Request]) -> list[Reply]:
        """Return the replies to all requests, in their order. Raises StoreUnavailableError."""
        return in_order(requests, self._answers(table, requests, _replies))

    def read(
        self, table: str, requests: Sequence[Request], value_bytes: int, decode: Decode[_Result]
    ) -> _Result:
        """Return what `decode` makes of the answers, in the order of the requests, and the values' buffer.

        Every request is for `rows` values of `value_bytes`. Raises StoreUnavailableError.
        """
        landing = self._landing(value_bytes)
        read = functools.partial(_landed, landing)
        answers = decode(in_order(requests, self._answers(table, requests, read)), landing.data)
        if len(landing.data) <= _KEPT:
            landing.clear()
            self._landings.setdefault(value_bytes, deque()).append(landing)
        return answers

    def _landing(self, value_bytes: int) -> Landing:
        try:
            return self._landings[value_bytes].pop()
        except LookupError:  # none yet, or all in use
            return Landing(value_bytes)

    def close(self) -> None:
        """Close all connections that are not in use."""
        for endpoint in list(self._idle):
            self._close_idle(endpoint)

    def _close_idle(self, endpoint: str) -> None:
        with contextlib.suppress(KeyError, IndexError):  # IndexError: all are closed
            while True:
                self._idle[endpoint].pop().disconnect()  # type: ignore[no-untyped-call]

    def _answers(
        self, table: str, requests: Sequence[Request], read: _Read[_Answer]
    ) -> dict[int, Sequence[_Answer]]:
        answers = self._asked(table, requests, read)
        if lost := elsewhere(answers):
            self._run(self._asker.servers.forget(table, lost))
            answers |= self._asked(table, [each for each in requests if each.shard in lost], read)
            if lost := elsewhere(answers):
                raise StoreUnavailableError(f"shard {table}:{lost[0]} is changing servers")
        return answers

    def _asked(
        self, table: str, requests: Sequence[Request], read: _Read[_Answer]
    ) -> dict[int, Sequence[_Answer]]:
        if not requests:
            return {}
        shards = [each.shard for each in requests]
        homes = self._asker.servers.known(table, shards)
        if homes is None:
            homes = self._run(self._asker.locate(table, shards))
        parts = pipelines(requests, homes)
        try:
            return self._exchange(parts, read)
        except StoreUnavailableError:  # the connections may have been idle through a restart of Redis
            for endpoint in parts:
                self._close_idle(endpoint)
        try:
            return self._exchange(parts, read)
        except StoreUnavailableError:
            self._run(self._asker.lost(table, shards))
            raise

    def _exchange(self, parts: Mapping[str, Pipeline], read: _Read[_Answer]) -> dict[int, Sequence[_Answer]]:
        sent: list[tuple[str, redis.Connection, Pipeline]] = []
        answers: dict[int, Sequence[_Answer]] = {}
        whole = False
        endpoint = next(iter(parts))
        try:
            for endpoint, part in parts.items():
                connection = self._connection(endpoint)
                sent.append((endpoint, connection, part))
                connection.send_packed_command([b"".join(part.packed)], check_health=False)  # type: ignore[no-untyped-call]
            for endpoint, connection, part in sent:  # noqa: B007 - named in the error
                answers |= read(connection, part)
            whole = True
            return answers
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
                max_connections=_UNCOUNTED,
            )
        # connects when it first sends
        return cast(redis.Connection, pool.make_connection())


def _replies(connection: redis.Connection, part: Pipeline) -> dict[int, Sequence[Reply]]:
    """Return the replies to a pipeline that was sent, by shard."""
    return {each.shard: [_reply(connection) for _ in range(each.replies)] for each in part.requests}


def _landed(landing: Landing, connection: redis.Connection, part: Pipeline) -> dict[int, Sequence[Answer]]:
    """The same, values left where they land; from the first odd reply on by redis-py's parser."""
    receive, feed = borrow(connection)
    landing.expect(part.replies - len(part.requests), sum(each.rows for each in part.requests))
    answers: dict[int, Sequence[Answer]] = {}
    for at, request in enumerate(part.requests):
        try:
            behind = request.replies - request.ahead - 1
            answers[request.shard] = landing.take(request.rows, receive, request.ahead, behind)
        except OddReply:
            feed(landing.rest())
            for each in part.requests[at:]:
                replies: list[Answer] = [_reply(connection) for _ in range(each.replies)]
                if isinstance(values := replies[each.ahead], list):
                    replies[each.ahead] = landing.put(cast("list[bytes | None]", values))
                answers[each.shard] = replies
            break
    return answers


def _reply(connection: redis.Connection) -> Reply:
    try:
        reply: Reply = connection.read_response(disconnect_on_error=False)
    except ResponseError as error:
        return error
    return reply
