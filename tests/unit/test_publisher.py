"""Frames go out in order, again and again until they are acknowledged."""

from __future__ import annotations

import asyncio
from functools import partial

import pytest

from driftline.client import publisher as module
from driftline.client.publisher import Publisher
from driftline.errors import InputError, LogUnavailableError
from driftline.log import MAX_BATCH_BYTES, Outgoing, record_size
from tests.support.memory_log import MemoryLog


@pytest.fixture(autouse=True)
def _no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_BACK_OFF", (0.0,))


@pytest.fixture
def log() -> MemoryLog:
    made = MemoryLog()
    made.partitions["t"] = [[], []]
    return made


def frames(*texts: str, partition: int = 0) -> list[tuple[int, Outgoing]]:
    return [(partition, Outgoing(text.encode())) for text in texts]


async def test_a_flush_returns_when_everything_is_acknowledged(log: MemoryLog) -> None:
    publisher = Publisher(log, 1 << 20)
    await publisher.put("t", lambda: frames("a", "b") + frames("c", partition=1))
    await publisher.flush()
    assert (log.values("t", 0), log.values("t", 1)) == ([b"a", b"b"], [b"c"])
    assert publisher.acknowledged("t") == {0: 2, 1: 1}
    assert publisher.acknowledged("other") == {}


async def test_all_waiting_frames_of_a_partition_go_in_one_batch(log: MemoryLog) -> None:
    log.gate.clear()
    publisher = Publisher(log, 1 << 20)
    await publisher.put("t", lambda: frames("a"))
    await asyncio.sleep(0)  # the first is under way
    await publisher.put("t", lambda: frames("b", "c"))
    log.gate.set()
    await publisher.flush()
    assert log.batches == [("t", 0, 1), ("t", 0, 2)]


@pytest.mark.parametrize("arrived", [True, False])
async def test_a_later_frame_never_overtakes_a_failed_one(log: MemoryLog, arrived: bool) -> None:
    log.faults.extend([(LogUnavailableError("lost"), arrived), (LogUnavailableError("lost"), False)])
    publisher = Publisher(log, 1 << 20)
    await publisher.put("t", lambda: frames("a", "b"))
    await asyncio.sleep(0)
    await publisher.put("t", lambda: frames("c"))
    await publisher.flush()
    values = log.values("t")
    assert values == [b"a", b"b"] * (1 + arrived) + [b"c"]
    assert publisher.acknowledged("t") == {0: len(values)}


async def test_a_put_waits_while_the_budget_is_used_up(log: MemoryLog) -> None:
    log.gate.clear()
    publisher = Publisher(log, record_size(Outgoing(b"a")) * 2)
    await publisher.put("t", lambda: frames("a", "b"))
    waiting = asyncio.create_task(publisher.put("t", lambda: frames("c")))
    for _ in range(10):
        await asyncio.sleep(0)
    assert not waiting.done()
    log.gate.set()
    await waiting
    await publisher.flush()
    assert log.values("t") == [b"a", b"b", b"c"]


async def test_one_call_may_exceed_the_budget_the_next_one_waits(log: MemoryLog) -> None:
    publisher = Publisher(log, 10)
    await publisher.put("t", lambda: frames("a" * 100, "b" * 100))
    await publisher.put("t", lambda: frames("c" * 100))
    await publisher.flush()
    assert log.batches == [("t", 0, 2), ("t", 0, 1)]


async def test_frames_are_made_in_the_order_of_the_calls_however_long_each_waits(log: MemoryLog) -> None:
    publisher = Publisher(log, 10)
    made: list[int] = []

    def make(number: int) -> list[tuple[int, Outgoing]]:
        made.append(number)
        return frames(str(number) * (200 if number % 2 else 1))

    calls = [asyncio.create_task(publisher.put("t", partial(make, number))) for number in range(20)]
    await asyncio.gather(*calls)
    await publisher.flush()
    assert made == list(range(20))
    assert len(log.values("t")) == 20


async def test_a_call_that_is_cancelled_while_it_waits_has_sent_nothing(log: MemoryLog) -> None:
    log.gate.clear()
    publisher = Publisher(log, 1)
    await publisher.put("t", lambda: frames("a"))
    waiting = asyncio.create_task(publisher.put("t", lambda: frames("b", "c")))
    await asyncio.sleep(0)
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)
    log.gate.set()
    await publisher.put("t", lambda: frames("d"))
    await publisher.flush()
    assert log.values("t") == [b"a", b"d"]


async def test_a_flush_waits_for_what_was_queued_before_it_only(log: MemoryLog) -> None:
    publisher = Publisher(log, 1 << 20)
    await publisher.put("t", lambda: frames("a"))
    flushing = asyncio.create_task(publisher.flush())
    pushed = 0
    while not flushing.done() and pushed < 1000:
        await publisher.put("t", lambda: frames("b"))
        await asyncio.sleep(0)
        pushed += 1
    assert pushed < 1000
    await flushing
    await publisher.close()


async def test_a_batch_stays_below_what_the_log_takes_at_once(log: MemoryLog) -> None:
    log.gate.clear()
    publisher = Publisher(log, 1 << 30)
    big = "x" * (MAX_BATCH_BYTES // 2 - 100)
    await publisher.put("t", lambda: frames(big, big, big))
    log.gate.set()
    await publisher.flush()
    assert log.batches == [("t", 0, 2), ("t", 0, 1)]


async def test_what_can_never_be_sent_is_told_to_every_later_call(log: MemoryLog) -> None:
    publisher = Publisher(log, 1 << 20)
    await publisher.put("t", lambda: frames("a", partition=7))
    with pytest.raises(InputError, match="an earlier push could not be sent"):
        await publisher.flush()
    with pytest.raises(InputError, match="an earlier push could not be sent"):
        await publisher.put("t", lambda: frames("b"))


async def test_closing_stops_what_is_under_way(log: MemoryLog) -> None:
    log.gate.clear()
    publisher = Publisher(log, 1 << 20)
    await publisher.put("t", lambda: frames("a"))
    await asyncio.sleep(0)
    await publisher.close()
    log.gate.set()
    await asyncio.sleep(0)
    assert log.values("t") == []


async def test_a_flush_of_nothing_returns_at_once(log: MemoryLog) -> None:
    await Publisher(log, 1).flush()
