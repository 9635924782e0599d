"""A TCP proxy that misbehaves on command: delays, cuts at a byte, black holes, another target.

Invariant: bytes of one direction keep their order, and what is forwarded is a
prefix of what came; nothing is altered. A connection that a black hole has
swallowed stays dead after the hole has closed, as with a path that has gone;
`hold` is the other kind: everything is delivered late.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import socket
import struct
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self
from urllib.parse import urlsplit

HOST = "127.0.0.1"
_CHUNK = 1 << 16
_AHEAD = 64  # chunks under way per direction, so that a delay is no bound on the throughput
_RESET = struct.pack("ii", 1, 0)  # SO_LINGER of no seconds: close sends RST


@dataclass(eq=False, slots=True)
class _Link:
    """One client connection and its counterpart."""

    writers: list[asyncio.StreamWriter]
    dead: bool = False
    tasks: list[asyncio.Task[None]] = field(default_factory=list)


class Proxy:
    """Listens on loopback in a thread of its own; all methods may be called from any thread."""

    def __init__(self, target: int = 0, *, port: int = 0, seed: int = 0) -> None:
        self._target = target
        self._rng = random.Random(seed)
        self._links: set[_Link] = set()
        self._delay = (0.0, 0.0)
        self._cut_after: int | None = None
        self._swallowing = False
        self._loop = asyncio.new_event_loop()
        self._open = asyncio.Event()
        self._open.set()
        self._listener = socket.create_server((HOST, port), backlog=128)
        self.port: int = self._listener.getsockname()[1]
        self.connections = 0
        self.forwarded = 0  # bytes
        self._thread = threading.Thread(target=self._run, name=f"proxy {self.port}", daemon=True)

    def url(self, behind: str) -> str:
        """Return a Redis URL that leads through here instead of straight to `behind`."""
        return f"redis://{HOST}:{self.port}{urlsplit(behind).path}"

    # -- faults -----------------------------------------------------------------

    def retarget(self, port: int) -> None:
        """Send new connections elsewhere."""
        self._do(lambda: setattr(self, "_target", port))

    def delay(self, low: float, high: float) -> None:
        """Hold every chunk back for a time between `low` and `high` seconds, drawn anew for each."""
        self._do(lambda: setattr(self, "_delay", (low, high)))

    def hold(self) -> None:
        """Let nothing pass; what comes is kept and delivered after `heal`."""
        self._do(self._open.clear)

    def swallow(self) -> None:
        """Be a black hole: connections stay open and nothing passes, on these not even after `heal`."""
        self._do(self._swallow)

    def cut_after(self, count: int) -> None:
        """Reset all connections once `count` more bytes have passed, in the middle of whatever is there."""
        self._do(lambda: setattr(self, "_cut_after", count))

    def cut(self) -> None:
        """Reset all connections now."""
        self._do(self._cut)

    def heal(self) -> None:
        """Forward everything from now on, on connections that are not dead."""
        self._do(self._heal)

    # -- life -------------------------------------------------------------------

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()

    def _do(self, change: Callable[[], object]) -> None:
        done = threading.Event()

        def run() -> None:
            change()
            done.set()

        self._loop.call_soon_threadsafe(run)
        if not done.wait(10.0):
            raise TimeoutError(f"proxy {self.port} does not answer")

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        server = self._loop.run_until_complete(asyncio.start_server(self._serve, sock=self._listener))
        self._loop.run_forever()
        server.close()
        self._cut()
        tasks = asyncio.all_tasks(self._loop)
        for task in tasks:
            task.cancel()
        self._loop.run_until_complete(asyncio.gather(*tasks, return_exceptions=True))
        self._loop.close()

    def _swallow(self) -> None:
        self._swallowing = True
        for link in self._links:
            link.dead = True

    def _heal(self) -> None:
        self._swallowing, self._delay, self._cut_after = False, (0.0, 0.0), None
        self._open.set()

    def _cut(self) -> None:
        self._cut_after = None
        for link in self._links:
            for writer in link.writers:
                peer: socket.socket | None = writer.get_extra_info("socket")
                if peer is not None:
                    with contextlib.suppress(OSError):  # closed by its own end meanwhile
                        peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
                writer.transport.abort()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        link = _Link([writer], dead=self._swallowing)
        self._links.add(link)
        try:
            if link.dead:  # not even a connection on the other side
                await reader.read()
                return
            other, out = await asyncio.open_connection(HOST, self._target)
            link.writers.append(out)
            pumps = (self._pump(reader, out, link), self._pump(other, writer, link))
            await asyncio.gather(*pumps)
        except (OSError, asyncio.CancelledError):
            pass  # the target is away, an end broke off and so does the other, or the proxy ends
        finally:
            self._links.discard(link)
            for each in link.writers:
                each.transport.abort() if link.dead else each.close()

    async def _pump(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter, link: _Link) -> None:
        sink.transport.set_write_buffer_limits(high=0)  # drained means: with the kernel
        queue: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue(_AHEAD)
        reading = asyncio.create_task(self._read(source, queue))
        try:
            while True:
                due, data = await queue.get()
                await asyncio.sleep(due - self._loop.time())
                await self._open.wait()
                if link.dead:
                    await reading
                    return
                if not data:
                    break
                await self._forward(data, sink)
            if sink.can_write_eof():
                sink.write_eof()
        finally:
            reading.cancel()
            await asyncio.gather(reading, return_exceptions=True)

    async def _read(self, source: asyncio.StreamReader, queue: asyncio.Queue[tuple[float, bytes]]) -> None:
        data = b"-"
        while data:
            try:
                data = await source.read(_CHUNK)
            except OSError:
                data = b""
            await queue.put((self._loop.time() + self._rng.uniform(*self._delay), data))

    async def _forward(self, data: bytes, sink: asyncio.StreamWriter) -> None:
        if self._cut_after is not None:
            data = data[: self._cut_after]
            self._cut_after -= len(data)
        sink.write(data)
        self.forwarded += len(data)
        await sink.drain()
        if self._cut_after == 0:
            self._cut()
