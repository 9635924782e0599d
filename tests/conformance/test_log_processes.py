"""The contract of `driftline.log.base` over several processes and kill -9."""

from __future__ import annotations

import asyncio
import itertools
import subprocess
from typing import TYPE_CHECKING

import pytest

from driftline.log import Log, Outgoing, Reader, Record, open_log

if TYPE_CHECKING:
    from tests.conformance.conftest import Spawn

pytestmark = pytest.mark.asyncio

WAIT = 30.0


async def everything(log: Log, topic: str, partition: int = 0) -> list[Record]:
    """Read the whole partition."""
    end = (await log.bounds(topic, partition)).end
    reader: Reader = log.reader(topic, partition, 0)
    records: list[Record] = []
    while len(records) < end:
        more = await reader.read(wait=WAIT)
        assert more
        records += more
    return records


def batches(records: list[Record]) -> list[tuple[str, list[int]]]:
    """Return (tag/batch, indices) of neighbouring records that are of the same batch."""
    keys = [(record.key or b"").decode().rsplit("/", 1) for record in records]
    return [(name, [int(i) for _, i in group]) for name, group in itertools.groupby(keys, lambda k: k[0])]


async def line(child: subprocess.Popen[str]) -> str:
    """Return the next line that a worker says."""
    assert child.stdout is not None
    said = await asyncio.wait_for(asyncio.to_thread(child.stdout.readline), WAIT)
    assert said, "the worker ended early"
    return said.strip()


async def test_batches_of_concurrent_processes_are_whole_and_contiguous(
    log: Log, log_url: str, topic: str, spawn: Spawn
) -> None:
    await log.create_topic(topic, 1)
    children = [spawn("append", log_url, topic, 0, tag, 7, 40, 3_000) for tag in ("a", "b")]
    for number in range(40):
        await log.append(
            topic, 0, [Outgoing(b"v", key=f"here/{number}/{index}".encode()) for index in range(7)]
        )
    for child in children:
        assert await asyncio.to_thread(child.wait, WAIT) == 0
    found = batches(await everything(log, topic))
    assert all(indices == list(range(7)) for _, indices in found)
    for tag in ("a", "b", "here"):
        assert [name for name, _ in found if name.startswith(f"{tag}/")] == [f"{tag}/{n}" for n in range(40)]


async def test_a_waiting_reader_wakes_for_another_process(
    log: Log, log_url: str, topic: str, spawn: Spawn
) -> None:
    await log.create_topic(topic, 1)
    reader = log.reader(topic, 0, 0)
    waiting = asyncio.create_task(reader.read(wait=WAIT))
    spawn("append", log_url, topic, 0, "other", 1, 1, 10)
    records = await waiting
    assert [record.key for record in records] == [b"other/0/0"]


async def test_acknowledged_batches_survive_kill_9_of_the_appender_and_none_is_half_there(
    log_url: str, topic: str, spawn: Spawn
) -> None:
    async with open_log(log_url) as log:
        await log.create_topic(topic, 1)
    acknowledged: dict[str, int] = {}
    for tag in ("first", "second"):
        child = spawn("append", log_url, topic, 0, tag, 9, 1_000_000, 30_000)
        for _ in range(15):
            number, offset = (await line(child)).split()
            acknowledged[f"{tag}/{number}"] = int(offset)
        child.kill()
        rest, _ = await asyncio.to_thread(child.communicate)
        for late in rest.splitlines():
            if len(parts := late.split()) == 2 and late.strip():
                acknowledged.setdefault(f"{tag}/{parts[0]}", -1)
    async with open_log(log_url) as log:
        records = await everything(log, topic)
    assert [record.offset for record in records] == list(range(len(records)))
    found = batches(records)
    assert all(indices == list(range(9)) for _, indices in found)
    first_offsets = {name: 9 * position for position, (name, _) in enumerate(found)}
    assert acknowledged.keys() <= first_offsets.keys()
    assert all(known in (-1, first_offsets[name]) for name, known in acknowledged.items())


async def test_a_log_is_usable_at_once_after_kill_9_of_an_appender(
    log: Log, log_url: str, topic: str, spawn: Spawn
) -> None:
    await log.create_topic(topic, 1)
    child = spawn("append", log_url, topic, 0, "killed", 3, 1_000_000, 100)
    await line(child)
    child.kill()
    await asyncio.to_thread(child.wait)
    first = await log.append(topic, 0, [Outgoing(b"next")])
    assert first % 3 == 0
    assert [r.value for r in await log.reader(topic, 0, first).read(wait=WAIT)] == [b"next"]


async def test_of_several_processes_that_create_a_topic_all_find_the_same_one(
    log_url: str, topic: str
) -> None:
    logs = [open_log(log_url) for _ in range(3)]
    for log in logs:
        await log.start()
    try:
        await asyncio.gather(*(log.create_topic(topic, 8) for log in logs))
        assert [(await log.topics())[topic] for log in logs] == [8, 8, 8]
    finally:
        for log in logs:
            await log.close()
