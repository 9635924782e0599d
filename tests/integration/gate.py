"""A proxy before Redis that can hold back replies: how round trips are counted.

Invariant: after `hold_replies_until(commands=n)` no reply passes before n commands
have come. A client that waits for a reply in between waits until its time-out, so
a call that returns has sent everything before it needed any answer.
"""

from __future__ import annotations

import socket
import threading
from contextlib import ExitStack, suppress
from types import TracebackType
from typing import Self
from urllib.parse import urlsplit

import hiredis

_CHUNK = 1 << 16


class Gate:
    """Listens on loopback; serves any number of connections until it is closed."""

    def __init__(self, redis_url: str) -> None:
        target = urlsplit(redis_url)
        self._target = (target.hostname or "127.0.0.1", target.port or 6379)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._sockets: list[socket.socket] = []
        self._threads = [threading.Thread(target=self._accept, daemon=True)]
        self._open = threading.Event()
        self._open.set()
        self._expected = 0
        self.commands = 0  # since replies were held back

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self._listener.getsockname()[1]}/0"

    def hold_replies_until(self, *, commands: int) -> None:
        self.commands, self._expected = 0, commands
        self._open.clear()

    def __enter__(self) -> Self:
        self._threads[0].start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._open.set()
        with ExitStack() as stack:
            for each in (self._listener, *self._sockets):
                stack.callback(each.close)
                with suppress(OSError):  # the other side was faster
                    each.shutdown(socket.SHUT_RDWR)
            for thread in self._threads:
                thread.join()

    def _accept(self) -> None:
        with suppress(OSError):  # closed: the end
            while True:
                client, _ = self._listener.accept()
                server = socket.create_connection(self._target)
                self._sockets += [client, server]
                pair = (
                    threading.Thread(target=self._forward, args=(client, server), daemon=True),
                    threading.Thread(target=self._answer, args=(server, client), daemon=True),
                )
                self._threads += pair
                for thread in pair:
                    thread.start()

    def _forward(self, client: socket.socket, server: socket.socket) -> None:
        parser = hiredis.Reader()
        with suppress(OSError):
            while data := client.recv(_CHUNK):
                parser.feed(data)
                while parser.gets() is not False:  # counted before the answer can be back
                    self.commands += 1
                if self.commands >= self._expected:
                    self._open.set()
                server.sendall(data)

    def _answer(self, server: socket.socket, client: socket.socket) -> None:
        with suppress(OSError):
            while data := server.recv(_CHUNK):
                self._open.wait()
                client.sendall(data)
