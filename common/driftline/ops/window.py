"""Which requests are in the ops log a second time: judged from the log alone, in bounded memory.

Invariant: the verdict on the record at offset n is a function of the records [n - SPAN, n]
of the ops log, so every router and every reader of the log gives the same one, wherever it
began to read at least SPAN records before n. A request says how long the log was when it was
signed, and is good for SPAN records from there: so an older copy of it is within reach, or
it is refused without one.
"""

from __future__ import annotations

from collections import deque

from driftline.errors import FrameError
from driftline.frames.reasons import Reason
from driftline.ops.requests import Asked

SPAN = 4096
"""Records for which a request is good. A client signs and appends at once: milliseconds, a few records.
Remembered are at most as many requests, some 0.9 MB."""


class RequestWindow:
    """The requests in the last SPAN records of an ops log, fed in the order of the log."""

    def __init__(self) -> None:
        self._first: dict[bytes, int] = {}  # request -> offset
        self._order: deque[tuple[int, bytes]] = deque()

    def check(self, asked: Asked, offset: int) -> None:
        """Take note of the request at `offset`. Raises FrameError `replayed_op` unless it is new.

        The record that was judged last may come again, as to a router that tries again.
        """
        while self._order and self._order[0][0] < offset - SPAN:
            del self._first[self._order.popleft()[1]]
        first = self._first.get(asked.request)
        if first is not None and first < offset:
            raise FrameError(
                Reason.REPLAYED_OP, f"request {asked.request.hex()} is at offset {first} of this log already"
            )
        if asked.behind > offset:
            raise FrameError(
                Reason.REPLAYED_OP,
                f"signed for an ops log of {asked.behind} records, this one has {offset}: it is another log",
            )
        if asked.behind < offset - SPAN:
            raise FrameError(
                Reason.REPLAYED_OP,
                f"signed for an ops log of {asked.behind} records and good for the next {SPAN}; "
                f"this is offset {offset}: ask anew",
            )
        if first is None:
            self._first[asked.request] = offset
            self._order.append((offset, asked.request))

    def offset_of(self, request: bytes) -> int | None:
        """Return where a request stands that counts; None if it is not in the last SPAN records."""
        return self._first.get(request)
