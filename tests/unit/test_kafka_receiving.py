"""Large answers arrive whole, however the network cuts them."""

from __future__ import annotations

import asyncio
import inspect
from types import SimpleNamespace

import pytest
from aiokafka.conn import AIOKafkaConnection
from hypothesis import given, settings
from hypothesis import strategies as st

from driftline.log.kafka.receiving import LARGE, Receiver, receive_in_parts


def receiver() -> asyncio.StreamReader:
    reader = asyncio.StreamReader(limit=1 << 16)
    receive_in_parts(SimpleNamespace(_reader=reader))
    assert isinstance(reader, Receiver)
    return reader


async def until_waiting() -> None:
    for _ in range(3):
        await asyncio.sleep(0)


@settings(deadline=None)
@given(
    st.lists(st.integers(1, 3 * LARGE), min_size=1, max_size=4),
    st.lists(st.integers(2000, 2 * LARGE), min_size=1, max_size=8),
)
def test_answers_are_the_bytes_that_were_sent_in_order(sizes: list[int], cuts: list[int]) -> None:
    sent = bytes(range(251)) * (sum(sizes) // 251 + 1)

    async def read_all() -> list[bytes]:
        reader = receiver()
        reading = asyncio.gather(read(reader))
        at, turn = 0, 0
        while at < sum(sizes):
            end = min(at + cuts[turn % len(cuts)], sum(sizes))
            reader.feed_data(sent[at:end])
            at, turn = end, turn + 1
            await until_waiting()
        return (await reading)[0]

    async def read(reader: asyncio.StreamReader) -> list[bytes]:
        return [await reader.readexactly(size) for size in sizes]

    assert b"".join(asyncio.run(read_all())) == sent[: sum(sizes)]


def test_the_names_it_leans_on_are_there() -> None:
    reading = inspect.getsource(AIOKafkaConnection._read)
    assert "reader.readexactly(size)" in reading
    assert "asyncio.StreamReader(limit=READER_LIMIT" in inspect.getsource(AIOKafkaConnection.connect)
    exactly = inspect.getsource(asyncio.StreamReader.readexactly)
    assert "self._buffer" in exactly
    assert "self._wait_for_data('readexactly')" in exactly
    assert "self._wakeup_waiter()" in inspect.getsource(asyncio.StreamReader.feed_data)


async def test_a_connection_that_ends_within_an_answer_says_so() -> None:
    reader = receiver()
    reading = asyncio.create_task(reader.readexactly(2 * LARGE))
    await until_waiting()
    reader.feed_data(b"begin")
    reader.feed_eof()
    with pytest.raises(asyncio.IncompleteReadError):
        await reading


async def test_what_breaks_a_connection_reaches_who_awaits_an_answer() -> None:
    reader = receiver()
    reading = asyncio.create_task(reader.readexactly(2 * LARGE))
    await until_waiting()
    reader.set_exception(ConnectionResetError("gone"))
    with pytest.raises(ConnectionResetError):
        await reading
