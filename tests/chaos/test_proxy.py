"""The proxy of the fault kit keeps its promises: what passes, what is cut, what is swallowed."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Iterator

import pytest

from driftline.errors import StoreUnavailableError
from driftline.rows import connection as module
from driftline.rows.connection import RedisConnection
from tests.chaos.kit.proxy import HOST, Proxy
from tests.support.waiting import until


@pytest.fixture
def echo() -> Iterator[int]:
    """A server that returns what it gets; its port."""
    listener = socket.create_server((HOST, 0))

    def answer(connection: socket.socket) -> None:
        with connection, contextlib.suppress(OSError):
            while data := connection.recv(1 << 16):
                connection.sendall(data)

    def accept() -> None:
        with contextlib.suppress(OSError):
            while True:
                threading.Thread(target=answer, args=(listener.accept()[0],), daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    with listener:
        yield listener.getsockname()[1]


def connect(proxy: Proxy, timeout: float = 5.0) -> socket.socket:
    return socket.create_connection((HOST, proxy.port), timeout=timeout)


def received(connection: socket.socket, count: int) -> bytes:
    data = b""
    while len(data) < count and (chunk := connection.recv(count - len(data))):
        data += chunk
    return data


def test_what_is_held_is_delivered_later(echo: int) -> None:
    with Proxy(echo) as proxy, connect(proxy, timeout=0.2) as client:
        proxy.hold()
        client.sendall(b"late")
        with pytest.raises(TimeoutError):
            client.recv(1)
        proxy.heal()
        client.settimeout(5.0)
        assert received(client, 4) == b"late"


def test_what_a_black_hole_has_swallowed_never_comes_and_new_connections_work_again(echo: int) -> None:
    with Proxy(echo) as proxy, connect(proxy, timeout=0.2) as dead:
        dead.sendall(b"1")
        assert received(dead, 1) == b"1"
        proxy.swallow()
        dead.sendall(b"2")
        proxy.heal()
        with pytest.raises(TimeoutError):
            dead.recv(1)
        with connect(proxy) as alive:
            alive.sendall(b"3")
            assert received(alive, 1) == b"3"


def test_a_cut_comes_after_exactly_so_many_bytes(echo: int) -> None:
    with Proxy(echo) as proxy, connect(proxy) as client:
        client.sendall(b"x")
        assert received(client, 1) == b"x"
        until(lambda: proxy.forwarded == 2, "the proxy has counted the byte and its echo")
        before = proxy.forwarded
        proxy.cut_after(10)
        client.sendall(b"y" * 7)
        with contextlib.suppress(ConnectionResetError):
            received(client, 100)
        assert proxy.forwarded - before == 10  # seven there, three of the seven on their way back


async def test_connecting_to_redis_through_a_black_hole_ends(
    redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "EXCHANGE_TIMEOUT", 0.2)
    with Proxy() as proxy:
        proxy.swallow()
        with pytest.raises(StoreUnavailableError, match="no greeting"):
            await RedisConnection.open(proxy.url(redis_url))
