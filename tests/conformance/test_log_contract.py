"""The contract of `driftline.log.base`, held to every backend alike, within one process."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Sequence

import pytest

from driftline.errors import InputError, OffsetError, PartitionCountError, UnknownTopicError
from driftline.log import MAX_BATCH_BYTES, MAX_RECORD_BYTES, Bounds, Log, Outgoing, Reader, Record, open_log

pytestmark = pytest.mark.asyncio

WAIT = 20.0


def numbered(*numbers: int) -> list[Outgoing]:
    return [Outgoing(str(number).encode()) for number in numbers]


def values(records: Sequence[Record]) -> list[int]:
    return [int(record.value) for record in records]


async def take(reader: Reader, count: int, *, max_bytes: int = 1 << 20) -> list[Record]:
    """Read until `count` records are there."""
    records: list[Record] = []
    while len(records) < count:
        more = await reader.read(max_bytes=max_bytes, wait=WAIT)
        assert more, f"only {len(records)} of {count} records came"
        records += more
    return records


async def test_records_are_read_in_the_order_of_append(log: Log, topic: str) -> None:
    await log.create_topic(topic, 1)
    for start in range(0, 30, 3):
        await log.append(topic, 0, numbered(start, start + 1, start + 2))
    assert values(await take(log.reader(topic, 0, 0), 30)) == list(range(30))


async def test_appends_begun_in_order_are_in_order_without_waiting_for_each(log: Log, topic: str) -> None:
    await log.create_topic(topic, 1)
    offsets = await asyncio.gather(*(log.append(topic, 0, numbered(n)) for n in range(40)))
    assert offsets == list(range(40))
    assert values(await take(log.reader(topic, 0, 0), 40)) == list(range(40))


async def test_offsets_are_dense_from_zero_and_append_returns_the_first(log: Log, topic: str) -> None:
    await log.create_topic(topic, 1)
    assert [await log.append(topic, 0, numbered(*range(n))) for n in (1, 3, 2)] == [0, 1, 4]
    assert [record.offset for record in await take(log.reader(topic, 0, 0), 6)] == list(range(6))


async def test_partitions_are_independent(log: Log, topic: str) -> None:
    await log.create_topic(topic, 3)
    await log.append(topic, 0, numbered(1))
    await log.append(topic, 2, numbered(2, 3))
    assert [await log.bounds(topic, p) for p in range(3)] == [Bounds(0, 1), Bounds(0, 0), Bounds(0, 2)]
    assert values(await take(log.reader(topic, 2, 0), 2)) == [2, 3]


async def test_any_offset_can_be_sought_and_replayed(log: Log, topic: str) -> None:
    await log.create_topic(topic, 1)
    await log.append(topic, 0, numbered(*range(20)))
    reader = log.reader(topic, 0, 13)
    assert values(await take(reader, 7)) == list(range(13, 20))
    for offset in (0, 19, 7):
        reader.seek(offset)
        assert reader.position == offset
        assert values(await take(reader, 20 - offset)) == list(range(offset, 20))
    assert reader.position == 20


async def test_two_readers_of_a_partition_do_not_disturb_each_other(log: Log, topic: str) -> None:
    await log.create_topic(topic, 1)
    await log.append(topic, 0, numbered(*range(6)))
    one, other = log.reader(topic, 0, 0), log.reader(topic, 0, 3)
    assert values(await one.read(max_bytes=1, wait=WAIT)) == [0]
    assert values(await take(other, 3)) == [3, 4, 5]
    assert values(await take(one, 5)) == [1, 2, 3, 4, 5]


async def test_timestamps_never_go_back(log: Log, topic: str) -> None:
    await log.create_topic(topic, 1)
    for number in range(20):
        await log.append(topic, 0, numbered(number, number))
    stamps = [record.timestamp for record in await take(log.reader(topic, 0, 0), 40)]
    assert stamps == sorted(stamps)
    assert stamps[0] > 1_600_000_000_000  # milliseconds


async def test_keys_headers_and_empty_values_come_back_as_they_went(log: Log, topic: str) -> None:
    await log.create_topic(topic, 1)
    sent = [
        Outgoing(b"", key=None),
        Outgoing(b"", key=b"", headers=(("empty", b""),)),
        Outgoing(bytes(range(256)), key=b"k\x00", headers=(("a", b"1"), ("a", b"2"), ("é", b"\xff\x00"))),
    ]
    await log.append(topic, 0, sent)
    got = await take(log.reader(topic, 0, 0), 3)
    assert [Outgoing(r.value, r.key, r.headers) for r in got] == sent


@pytest.mark.parametrize("size", [1 << 20, MAX_RECORD_BYTES - 64])
async def test_large_frames_come_back_whole(log: Log, topic: str, size: int) -> None:
    await log.create_topic(topic, 1)
    frame = os.urandom(size)
    await log.append(topic, 0, [Outgoing(frame)])
    await log.append(topic, 0, [Outgoing(b"after")])
    assert [r.value for r in await take(log.reader(topic, 0, 0), 2)] == [frame, b"after"]


async def test_a_record_over_the_limit_is_refused_and_nothing_of_its_batch_appended(
    log: Log, topic: str
) -> None:
    await log.create_topic(topic, 1)
    with pytest.raises(InputError, match="record 1"):
        await log.append(topic, 0, [Outgoing(b"x"), Outgoing(bytes(MAX_RECORD_BYTES))])
    assert await log.bounds(topic, 0) == Bounds(0, 0)
    assert await log.append(topic, 0, [Outgoing(b"x")]) == 0


async def test_a_batch_that_cannot_be_appended_whole_is_refused(log: Log, topic: str) -> None:
    await log.create_topic(topic, 1)
    half = Outgoing(bytes(MAX_BATCH_BYTES // 2))
    with pytest.raises(InputError, match="split"):
        await log.append(topic, 0, [half, half])
    assert await log.bounds(topic, 0) == Bounds(0, 0)


async def test_an_empty_batch_is_refused(log: Log, topic: str) -> None:
    await log.create_topic(topic, 1)
    with pytest.raises(InputError, match="empty"):
        await log.append(topic, 0, [])


async def test_a_waiting_reader_wakes_for_the_next_record(log: Log, topic: str) -> None:
    await log.create_topic(topic, 1)
    reader = log.reader(topic, 0, 0)
    assert list(await reader.read(wait=0.02)) == []
    waiting = asyncio.create_task(reader.read(wait=WAIT))
    await asyncio.sleep(0)  # let it begin
    await log.append(topic, 0, numbered(7))
    assert values(await waiting) == [7]


async def test_a_read_without_wait_returns_what_is_there(log: Log, topic: str) -> None:
    await log.create_topic(topic, 1)
    await log.append(topic, 0, numbered(1, 2))
    reader = log.reader(topic, 0, 0)
    assert values(await reader.read()) == [1, 2]
    assert list(await reader.read()) == []
    await log.append(topic, 0, numbered(3))
    assert values(await reader.read()) == [3]


async def test_a_read_stops_after_the_record_that_reaches_max_bytes(log: Log, topic: str) -> None:
    await log.create_topic(topic, 1)
    await log.append(topic, 0, [Outgoing(b"x" * 100)] * 5)
    reader = log.reader(topic, 0, 0)
    assert [len(await reader.read(max_bytes=250, wait=WAIT)) for _ in range(2)] == [3, 2]
    assert reader.position == 5


async def test_a_slow_reader_sees_everything_in_order_in_bounded_reads(log: Log, topic: str) -> None:
    await log.create_topic(topic, 1)
    frame = b"x" * 20_000
    batches, size, max_bytes = 60, 5, 70_000

    async def write() -> None:
        for number in range(batches):
            await log.append(
                topic, 0, [Outgoing(frame, key=b"%d" % (number * size + i)) for i in range(size)]
            )

    writer = asyncio.create_task(write())
    reader, keys = log.reader(topic, 0, 0), list[int]()
    while len(keys) < batches * size:
        records = await reader.read(max_bytes=max_bytes, wait=WAIT)
        assert records
        assert sum(len(r.value) for r in records[:-1]) < max_bytes
        keys += [int(r.key or b"") for r in records]
    await writer
    assert keys == list(range(batches * size))


async def test_a_cancelled_append_is_not_overtaken(log: Log, topic: str) -> None:
    await log.create_topic(topic, 1)
    cancelled = asyncio.create_task(log.append(topic, 0, numbered(1, 2, 3)))
    await asyncio.sleep(0)
    cancelled.cancel()
    await log.append(topic, 0, numbered(4))
    end = (await log.bounds(topic, 0)).end
    assert values(await take(log.reader(topic, 0, 0), end)) in ([4], [1, 2, 3, 4])


async def test_a_log_keeps_everything_over_close_and_reopen(log_url: str, topic: str) -> None:
    async with open_log(log_url) as log:
        await log.create_topic(topic, 2)
        await log.append(topic, 1, numbered(1, 2))
    async with open_log(log_url) as log:
        assert (await log.topics())[topic] == 2
        assert await log.append(topic, 1, numbered(3)) == 2
        assert values(await take(log.reader(topic, 1, 0), 3)) == [1, 2, 3]


async def test_create_topic_is_idempotent(log: Log, topic: str) -> None:
    await asyncio.gather(*(log.create_topic(topic, 4) for _ in range(3)))
    await log.append(topic, 3, numbered(1))
    await log.create_topic(topic, 4)
    assert (await log.topics())[topic] == 4
    assert await log.bounds(topic, 3) == Bounds(0, 1)


async def test_another_partition_count_is_refused(log: Log, topic: str) -> None:
    await log.create_topic(topic, 2)
    with pytest.raises(PartitionCountError, match="has 2 partitions, 3 asked for"):
        await log.create_topic(topic, 3)


@pytest.mark.parametrize("name", ["", "a/b", "a b", "..", "x" * 201])
async def test_topic_names_outside_the_alphabet_are_refused(log: Log, name: str) -> None:
    with pytest.raises(InputError, match="topic name"):
        await log.create_topic(name, 1)


async def test_an_unknown_topic_is_refused_and_not_created(log: Log, topic: str) -> None:
    with pytest.raises(UnknownTopicError, match=topic):
        await log.append(topic, 0, numbered(1))
    with pytest.raises(UnknownTopicError, match=topic):
        await log.bounds(topic, 0)
    with pytest.raises(UnknownTopicError, match=topic):
        await log.reader(topic, 0, 0).read()
    assert topic not in await log.topics()


async def test_an_unknown_partition_is_refused(log: Log, topic: str) -> None:
    await log.create_topic(topic, 2)
    with pytest.raises(UnknownTopicError, match="no partition 2"):
        await log.append(topic, 2, numbered(1))
    with pytest.raises(UnknownTopicError, match="no partition 2"):
        await log.bounds(topic, 2)
    with pytest.raises(UnknownTopicError, match="no partition 2"):
        await log.reader(topic, 2, 0).read()


async def test_an_offset_beyond_the_end_is_refused_the_end_itself_is_not(log: Log, topic: str) -> None:
    await log.create_topic(topic, 1)
    await log.append(topic, 0, numbered(1, 2))
    assert list(await log.reader(topic, 0, 2).read()) == []
    with pytest.raises(OffsetError, match="offset 3 is not in the log"):
        await log.reader(topic, 0, 3).read(wait=WAIT)


async def test_a_reader_goes_on_after_a_refused_offset(log: Log, topic: str) -> None:
    await log.create_topic(topic, 1)
    await log.append(topic, 0, numbered(5))
    reader = log.reader(topic, 0, 9)
    with pytest.raises(OffsetError):
        await reader.read(wait=WAIT)
    reader.seek(0)
    assert values(await take(reader, 1)) == [5]
