"""Replies in a buffer: what is found where, however they come, and that nothing is waited for in vain."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import hiredis
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from driftline.client.landing import NOWHERE, START_BYTES, Landing, OddReply, Receive, Values, evenly, offsets
from driftline.rows.connection import Reply

LENGTH = 20
POSITION = b"*4\r\n$3\r\n107\r\n$1\r\n2\r\n$1\r\n0\r\n$-1\r\n"
ROW = st.binary(min_size=LENGTH, max_size=LENGTH) | st.sampled_from(
    [b"\r\n$20\r\n$-1\r\n*4\r\n$-1\r\n"[:LENGTH], b"$-1\r\n" * 4]  # what looks like headers and is not
)
ROWS = st.lists(ROW | st.none(), min_size=1, max_size=40)


def values(rows: Sequence[bytes | None], length: int = LENGTH) -> bytes:
    each = (b"$-1\r\n" if row is None else b"$%d\r\n%b\r\n" % (length, row) for row in rows)
    return b"*%d\r\n%b" % (len(rows), b"".join(each))


def in_pieces(data: bytes, sizes: Iterator[int]) -> Receive:
    """Return what receives `data` piece by piece, and fails when more is waited for."""
    left = memoryview(data)

    def receive(room: memoryview) -> int:
        nonlocal left
        assert len(left), "waits for what does not come"
        size = min(next(sizes, len(left)), len(room), len(left))
        room[:size] = left[:size]
        left = left[size:]
        return size

    return receive


def found(landing: Landing, some: Sequence[Values]) -> list[bytes | None]:
    """Return the values that lie in a buffer."""
    places = offsets(some).tolist()
    return [None if at == NOWHERE else bytes(landing.data[at : at + LENGTH]) for at in places]


def parsed(data: bytes) -> list[Reply]:
    reader = hiredis.Reader()
    reader.feed(data)
    replies: list[Reply] = []
    while (reply := reader.gets()) is not False:
        replies.append(reply)
    return replies


@settings(deadline=None)
@given(st.lists(ROWS, min_size=1, max_size=4), st.lists(st.integers(1, 90)))
def test_values_are_found_where_hiredis_finds_them_however_they_come(
    shards: list[list[bytes | None]], sizes: list[int]
) -> None:
    data = b"".join(POSITION + values(rows) for rows in shards)
    landing, receive = Landing(LENGTH), in_pieces(data, iter(sizes))
    landing.expect(len(shards), sum(map(len, shards)))
    for at, rows in enumerate(shards):
        try:
            position, some = landing.take(len(rows), receive)
        except OddReply:  # many gaps, or a piece that ends in the middle of a position
            rest = landing.rest() + bytes(drained(receive))
            assert parsed(rest) == parsed(b"".join(POSITION + values(each) for each in shards[at:]))
            return
        assert position == [b"107", b"2", b"0", None]
        assert isinstance(some, Values)
        assert found(landing, [some]) == rows


def drained(receive: Receive) -> Iterator[int]:
    room = memoryview(bytearray(1 << 16))
    while True:
        try:
            size = receive(room)
        except AssertionError:
            return
        yield from room[:size]


def test_values_that_all_exist_are_found_in_a_buffer_of_any_number_of_pieces() -> None:
    rows: list[bytes | None] = [bytes([at]) * LENGTH for at in range(200)]
    data = POSITION + values(rows)
    for size in (1, 7, 26, 1_000, len(data)):
        landing = Landing(LENGTH)
        landing.expect(1, len(rows))
        # a position in pieces is read by hiredis; what is behind it is not
        (_, some) = landing.take(len(rows), in_pieces(data, iter([len(POSITION) + 6, *[size] * len(data)])))
        assert isinstance(some, Values)
        assert found(landing, [some]) == rows


def test_values_at_one_stride_are_said_to_lie_evenly() -> None:
    landing, rows = Landing(LENGTH), [[bytes([at]) * LENGTH] * 3 for at in range(2)]
    receive = in_pieces(b"".join(POSITION + values(each) for each in rows), iter([]))
    some = [landing.take(3, receive)[1] for _ in rows]
    assert all(isinstance(each, Values) for each in some)
    several = [each for each in some if isinstance(each, Values)]
    begins = evenly(several, 27)
    assert begins is not None
    places = [
        begin + rank * 27
        for begin, ranks in zip(begins, ((0, 1, 2), (3, 4, 5)), strict=True)
        for rank in ranks
    ]
    assert places == offsets(several).tolist()


AHEAD = b"*2\r\n$3\r\n107\r\n$-1\r\n" + b"$4\r\n\r\n$1\r\n"
BEHIND = b":-12\r\n" + POSITION + b"$0\r\n\r\n*-1\r\n"


@settings(deadline=None)
@given(ROWS, st.lists(st.integers(1, 90)))
def test_small_replies_ahead_and_behind_are_read_however_they_come(
    rows: list[bytes | None], sizes: list[int]
) -> None:
    data = AHEAD + values(rows) + BEHIND
    landing, receive = Landing(LENGTH), in_pieces(data, iter(sizes))
    try:
        replies = landing.take(len(rows), receive, ahead=2, behind=4)
    except OddReply:  # many gaps
        assert landing.rest() + bytes(drained(receive)) == data
        return
    some = replies[2]
    assert isinstance(some, Values)
    assert found(landing, [some]) == rows
    assert [replies[:2], replies[3:]] == [parsed(AHEAD), parsed(BEHIND)]
    assert landing.rest() == b""


@pytest.mark.parametrize(
    "reply",
    [
        b"-MOVED 17 127.0.0.1:7000\r\n" * 4,
        AHEAD + b"-WRONGTYPE of value\r\n",
        AHEAD + values([None]),
        AHEAD + values([None, None]) + b"-LOADING\r\n",
        AHEAD + values([None, None]) + b"+OK\r\n",
        AHEAD + values([None, None]) + b":" + b"1" * 30,
    ],
)
def test_what_is_no_small_reply_is_left_untouched_and_not_waited_for(reply: bytes) -> None:
    for first in (1, 4, 10, 30, len(reply)):
        landing = Landing(LENGTH)
        receive = in_pieces(reply, iter([first]))
        with pytest.raises(OddReply):
            landing.take(2, receive, ahead=2, behind=1)
        assert reply.startswith(landing.rest())


@pytest.mark.parametrize(
    "reply",
    [
        b"-MOVED 17 127.0.0.1:7000\r\n" * 2,
        b"-ERR\r\n" * 2,
        b"*4\r\n" + b"$-1\r\n" * 4 + values([None, None]),  # nothing is stored yet
        POSITION.replace(b"$-1", b"$5\r\nother") + values([None, None]),  # a signpost
        POSITION + b"-WRONGTYPE of value\r\n",
        POSITION + values([b"x", b"y"], 1),
        POSITION + values([None]),
        POSITION + b"*-1\r\n",
    ],
)
def test_whatever_else_is_left_untouched_and_not_waited_for(reply: bytes) -> None:
    for first in (1, 4, 10, 30, len(reply)):
        landing = Landing(LENGTH)
        receive = in_pieces(reply, iter([first]))
        with pytest.raises(OddReply):
            landing.take(2, receive)
        assert reply.startswith(landing.rest())


def test_values_read_another_way_lie_behind_all_others() -> None:
    landing = Landing(LENGTH)
    receive = in_pieces(POSITION + values([b"a" * LENGTH]), iter([]))
    one, other = landing.take(1, receive)[1], landing.put([None, b"b" * LENGTH])
    assert isinstance(one, Values)
    assert found(landing, [one, other]) == [b"a" * LENGTH, None, b"b" * LENGTH]
    assert evenly([one, other], 27) is None


def test_a_buffer_grows_with_what_is_read_and_keeps_what_it_holds() -> None:
    rows: list[bytes | None] = [bytes([at % 251]) * LENGTH for at in range(START_BYTES // LENGTH)]
    data = POSITION + values(rows)
    landing = Landing(LENGTH)
    receive = in_pieces(data * 2, iter([]))
    some = [landing.take(len(rows), receive)[1] for _ in range(2)]
    assert found(landing, [each for each in some if isinstance(each, Values)]) == rows * 2


def test_rows_that_do_not_exist_lie_in_zeros_also_when_a_buffer_is_used_again() -> None:
    landing = Landing(LENGTH)
    for _ in range(2):
        receive = in_pieces(POSITION + values([b"\xff" * LENGTH, None]), iter([]))
        landing.take(2, receive)
        landing.clear()
        assert landing.data[NOWHERE : NOWHERE + LENGTH] == bytes(LENGTH)
    assert np.frombuffer(landing.data, np.uint8)[:LENGTH].sum() == 0
