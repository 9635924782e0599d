"""Receives large answers of a broker with one copy.

Invariant: the bytes are those that `asyncio.StreamReader` would return, in the same
order; only where they wait until an answer is complete is another place. asyncio gathers
them in a bytearray that grows and moves, and stops and starts the connection whenever it
holds 128 KiB: half of the processor time of a fetch.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

LARGE = 64 << 10
"""Bytes from which an answer is gathered here."""


class Receiver(asyncio.StreamReader):
    """A stream reader that keeps what it is fed as it came while a large answer is awaited.

    Never made: a reader that is in use becomes one by `receive_in_parts`.
    """

    _buffer: bytearray
    _eof: bool
    _parts: list[bytes] | None = None
    _missing = 0

    def feed_data(self, data: bytes) -> None:  # type: ignore[override]  # transports hand over bytes
        if self._parts is None:
            super().feed_data(data)
            return
        self._parts.append(data)
        self._missing -= len(data)
        if self._missing <= 0:
            self._wakeup_waiter()

    async def readexactly(self, n: int) -> bytes:
        if n < LARGE or n <= len(self._buffer):
            return await super().readexactly(n)
        parts = self._parts = [bytes(self._buffer)]
        self._missing = n - len(self._buffer)
        self._buffer.clear()
        try:
            while self._missing > 0:
                if self._eof:
                    raise asyncio.IncompleteReadError(b"".join(parts), n)
                await self._wait_for_data("readexactly")
        finally:
            self._parts = None
        if self._missing < 0:  # the begin of the next answer
            last = parts.pop()
            parts.append(last[: self._missing])
            self._buffer.extend(last[self._missing :])
        return b"".join(parts)

    if TYPE_CHECKING:  # asyncio's own

        def _wakeup_waiter(self) -> None: ...

        async def _wait_for_data(self, func_name: str) -> None: ...


def receive_in_parts(connection: Any) -> None:
    """Have an open connection of aiokafka's receive by `Receiver`."""
    reader = connection._reader
    if type(reader) is asyncio.StreamReader:
        reader.__class__ = Receiver
