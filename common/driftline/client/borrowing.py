"""A connection's socket and parser, for a while: redis-py connects, logs in and speaks TLS, we read.

Invariant: between exchanges the parser holds no byte, so whoever reads the socket reads the replies
from their begin. What is private to redis-py is named here and nowhere else.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import redis
from redis.exceptions import ConnectionError as Broken

from driftline.client.landing import OddReply, Receive

Feed = Callable[[bytes], object]


def borrow(connection: redis.Connection) -> tuple[Receive, Feed]:
    """Return what reads the socket of a connection that is open, and what hands bytes back to its parser.

    With a redis-py whose parser is another one, nothing is read but by the parser.
    """
    private: Any = connection
    parser = getattr(private, "_parser", None)
    reader, socket = getattr(parser, "_reader", None), getattr(private, "_sock", None)
    if reader is None or socket is None or reader.has_data():
        return _refuse, _nothing

    recv_into: Receive = socket.recv_into

    def receive(room: memoryview) -> int:
        received = recv_into(room)
        if not received:
            raise Broken("the server closed the connection")
        return received

    return receive, reader.feed


def _refuse(room: memoryview) -> int:
    raise OddReply


def _nothing(data: bytes) -> None:
    assert not data, "nothing was read"
