"""A loopback proxy that holds every request back for a while, as a store far away does.

`python -m bench.latency --to HOST:PORT --delay 0.02` prints the port it listens at and serves
until it is ended. Bytes pass unchanged, so signed requests stay valid.

Invariant: a request is held back once. HTTP/1.1 clients send the next request of a connection
after the reply to the one before, so the first bytes of a client after bytes of the server,
or on a new connection, begin a request.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import subprocess
import sys
from collections.abc import Iterator

_CHUNK = 1 << 20


class _Link:
    """One connection: whether the next bytes of the client begin a request."""

    def __init__(self, delay: float) -> None:
        self.delay, self.fresh = delay, True

    async def up(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(_CHUNK):
            if self.fresh:
                self.fresh = False
                await asyncio.sleep(self.delay)
            writer.write(data)
            await writer.drain()
        writer.close()

    async def down(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(_CHUNK):
            self.fresh = True
            writer.write(data)
            await writer.drain()
        writer.close()


async def serve(host: str, port: int, delay: float) -> None:
    """Listen on a free port, print it, and pass everything on."""

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        link = _Link(delay)
        there = await asyncio.open_connection(host, port, limit=_CHUNK)
        with contextlib.suppress(OSError):  # either end may go away at any time
            await asyncio.gather(link.up(reader, there[1]), link.down(there[0], writer))

    server = await asyncio.start_server(handle, "127.0.0.1", 0, limit=_CHUNK)
    print(server.sockets[0].getsockname()[1], flush=True)
    async with server:
        await server.serve_forever()


@contextlib.contextmanager
def delayed(endpoint: str, delay: float) -> Iterator[str]:
    """Yield an endpoint that passes on to `endpoint`, each request `delay` seconds later."""
    host = endpoint.removeprefix("http://")
    command = [sys.executable, "-m", "bench.latency", "--to", host, "--delay", str(delay)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as proxy:
        assert proxy.stdout is not None
        try:
            yield f"http://127.0.0.1:{int(proxy.stdout.readline())}"
        finally:
            proxy.terminate()


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.latency", description=__doc__)
    parser.add_argument("--to", required=True, metavar="HOST:PORT")
    parser.add_argument("--delay", type=float, default=0.02, help="seconds per request")
    asked = parser.parse_args()
    host, _, port = asked.to.rpartition(":")
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(serve(host, int(port), asked.delay))


if __name__ == "__main__":
    main()
