"""Where the replies of one read land: one buffer, in which the values lie at constant strides.

Invariant: a value is taken for present only where its header stands, and nothing is waited for that
is not certain to come: headers are looked at in order, so that a place is known before it is looked
at. Whatever is not a position, or several small replies, followed by values of the expected length or
nils, is left to hiredis.
Source: the Redis serialisation protocol (RESP2).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from driftline.rows.connection import Reply
from driftline.rows.layout import join

Receive = Callable[[memoryview], int]
"""Writes to the begin of a buffer what has come, waits for a first byte, and returns how many came."""

_POSITION = re.compile(rb"\*4\r\n\$\d+\r\n(\d+)\r\n\$\d+\r\n(\d+)\r\n\$\d+\r\n(\d+)\r\n\$-1\r\n\*(\d+)\r\n")
_SMALL_BYTES = 128  # that _POSITION has at most, and a little more
_LINE = re.compile(rb"([*$:])(-?\d+)\r\n")
_LINE_BYTES = 24  # that _LINE has at most, and a little more
_BEGIN = b"*4\r\n"
_NIL = b"$-1\r\n"
_SURE = len(_BEGIN) + 4 * len(_NIL) + len(b"-ERR\r\n")  # no position with a reply behind it is shorter
_END = len(b"\r\n")
_RUNS = 16  # of values and nils in turn in one reply; with more of them hiredis is as fast
START_BYTES = 1 << 17
"""Of a buffer before it grows."""
NOWHERE = 0
"""Where a row lies that does not exist: a buffer begins with zeros."""


class OddReply(Exception):  # noqa: N818 - no error: hiredis reads what it is
    """Something else than expected; from `Landing.at` on nothing was taken."""


class Run(NamedTuple):
    """Values at a constant stride; with stride 0 there are none, and these rows do not exist."""

    start: int
    stride: int
    rows: int


class Values(NamedTuple):
    """Where in a buffer the values of one reply lie."""

    runs: Sequence[Run]
    present: NDArray[np.bool_] | None = None  # which of them exist, where runs do not say it


def offsets(found: Sequence[Values]) -> NDArray[np.intp]:
    """Return where each value begins, NOWHERE if it does not exist."""
    runs = np.array([run for values in found for run in values.runs], np.intp)
    starts, strides, counts = runs.T
    ends = counts.cumsum()
    places = np.arange(ends[-1])
    places *= strides.repeat(counts)
    places += (starts - (ends - counts) * strides).repeat(counts)
    at = 0
    for values in found:
        count = sum(run.rows for run in values.runs)
        if values.present is not None:
            places[at : at + count][~values.present] = NOWHERE
        at += count
    return places


def stride_of(length: int) -> int:
    """Return how far apart values of `length` bytes lie in a reply."""
    return len(b"$%d\r\n" % length) + length + _END


def evenly(found: Sequence[Values], stride: int) -> list[int] | None:
    """Return a place per reply: its value of rank r among those of all replies begins r strides behind it.

    None where values do not lie so.
    """
    begins: list[int] = []
    rank = 0
    for runs, present in found:
        if len(runs) != 1 or present is not None or runs[0].stride != stride:
            return None
        begins.append(runs[0].start - rank * stride)
        rank += runs[0].rows
    return begins


class Landing:
    """A buffer for the replies of one read from all its servers, and for the next read again."""

    def __init__(self, length: int) -> None:
        """`length`: bytes of a value."""
        self._length = length
        self._header = b"$%d\r\n" % length
        self._stride = stride_of(length)
        self._head = np.dtype(f"V{len(self._header)}")
        self._look = max(len(self._header), len(_NIL))
        self.data = bytearray(START_BYTES)
        self._view = memoryview(self.data)
        self.at = self.end = 0  # the next byte to look at, the end of what was received
        self.clear()

    def clear(self) -> None:
        """Forget what landed."""
        self.at = self.end = self._length  # the zeros before it stay
        self._reserve(0)

    def expect(self, small: int, rows: int) -> None:
        """Have room for the replies of a server, small ones and rows, which land behind all others."""
        self.at = self.end
        self._reserve(small * _SMALL_BYTES + rows * self._stride)

    def take(self, count: int, receive: Receive, ahead: int = 1, behind: int = 0) -> list[Reply | Values]:
        """Return a shard's replies; for its `count` ≥ 1 values, where they lie.

        One reply `ahead` of them is a position, several are any, and so are those `behind`.
        Raises OddReply, with `at` where the shard's replies begin, and what `receive` raises.
        """
        first = self.at
        try:
            replies = self._position(count, receive) if ahead == 1 else self._ahead(ahead, count, receive)
            at, end = self.at, self.at + count * self._stride
            if end <= self.end and self._heads(at, count) == self._header * count:  # as it nearly always is
                self.at = end
                replies.append(Values([Run(at + len(self._header), self._stride, count)]))
            else:
                replies.append(Values(self._runs(count, receive)))
            if behind:
                replies += [self._small(receive) for _ in range(behind)]
            return replies
        except OddReply:
            self.at = first
            raise

    def rest(self) -> bytes:
        """Return what was received and not taken."""
        return bytes(self._view[self.at : self.end])

    def put(self, values: Sequence[bytes | None]) -> Values:
        """Copy values that came another way behind all others. Raises PositionError for other lengths."""
        present, joined = join(values, self._length)
        self._reserve(len(joined))
        start, self.end = self.end, self.end + len(joined)
        self._view[start : self.end] = joined
        return Values([Run(start, self._length, len(values))], present)

    def _position(self, count: int, receive: Receive) -> list[Reply | Values]:
        while (found := _POSITION.match(self.data, self.at, self.end)) is None:
            seen = self.data[self.at : min(self.end, self.at + _SURE)]
            if len(seen) == _SURE or not (seen.startswith(_BEGIN) or _BEGIN.startswith(seen)):
                raise OddReply
            self._receive(receive)
        following, generation, restores, values = found.groups()
        if int(values) != count:
            raise OddReply
        self.at = found.end()
        return [[following, generation, restores, None]]

    def _ahead(self, ahead: int, count: int, receive: Receive) -> list[Reply | Values]:
        replies: list[Reply | Values] = [self._small(receive) for _ in range(ahead)]
        if self._line(receive) != (b"*", count):
            raise OddReply
        return replies

    def _small(self, receive: Receive) -> Reply:
        """Take a reply of integers and strings, which says itself how long it is."""
        kind, number = self._line(receive)
        if kind == b":":
            return number
        if number < 0:
            return None
        if kind == b"*":
            return [self._small(receive) for _ in range(number)]
        at, self.at = self.at, self.at + number + _END
        while self.end < self.at:
            self._receive(receive)
        return bytes(self._view[at : at + number])

    def _line(self, receive: Receive) -> tuple[bytes, int]:
        while (found := _LINE.match(self.data, self.at, self.end)) is None:
            seen = self.data[self.at : min(self.end, self.at + _LINE_BYTES)]
            if len(seen) == _LINE_BYTES or seen[:1] not in b"*$:":  # nothing is in it
                raise OddReply
            self._receive(receive)
        self.at = found.end()
        return found[1], int(found[2])

    def _runs(self, count: int, receive: Receive) -> list[Run]:
        header, stride = self._header, self._stride
        runs: list[Run] = []
        while count:
            at, seen = self.at, self.data[self.at : min(self.end, self.at + self._look)]
            if len(runs) >= _RUNS:
                raise OddReply
            if seen.startswith(header):
                whole = min(count, (self.end - at) // stride)
                if not whole:
                    self._receive(receive)
                    continue
                run = Run(at + len(header), stride, _alike(self._heads(at, whole), header))
                self.at += run.rows * stride
            elif seen.startswith(_NIL):
                whole = min(count, (self.end - at) // len(_NIL))
                run = Run(NOWHERE, 0, _alike(bytes(self._view[at : at + whole * len(_NIL)]), _NIL))
                self.at += run.rows * len(_NIL)
            elif header.startswith(seen) or _NIL.startswith(seen):
                self._receive(receive)
                continue
            else:
                raise OddReply
            count -= run.rows
            if runs and run.start == runs[-1].start + runs[-1].rows * runs[-1].stride:  # had not come yet
                run = Run(runs[-1].start, run.stride, runs.pop().rows + run.rows)
            runs.append(run)
        return runs

    def _heads(self, at: int, count: int) -> bytes:
        """Return what stands where the headers of values are expected."""
        return np.ndarray((count,), self._head, self.data, at, (self._stride,)).tobytes()

    def _receive(self, receive: Receive) -> None:
        self._reserve(1)
        self.end += receive(self._view[self.end :])

    def _reserve(self, room: int) -> None:
        """Have that much room behind `end`, and more where it has to grow."""
        if self.end + room > len(self.data):
            data = bytearray(max(self.end + room, 2 * len(self.data)))
            data[: self.end] = self._view[: min(self.end, len(self.data))]
            self.data, self._view = data, memoryview(data)


def _alike(data: bytes, unit: bytes) -> int:
    """Return how often `unit` stands at the begin of `data`, which is as long as several."""
    several = len(data) // len(unit)
    if data == unit * several:
        return several
    kind = f"V{len(unit)}"
    same: NDArray[np.bool_] = np.frombuffer(data, kind) == np.frombuffer(unit, kind)
    return int(np.argmin(same))
