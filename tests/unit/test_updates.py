"""Publishing: what is in flight is counted in bytes of states, and acknowledged in order."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import numpy as np
import pytest

from driftline import topics
from driftline.frames.states import States, read_update
from driftline_services.aggregator.updates import APPEND_BYTES, FRAME_BYTES, Updates, states_bytes
from tests.support.memory_log import MemoryLog

UPDATES = topics.updates("items")


def states(count: int, width: int) -> States:
    return States(
        "items",
        0,
        np.arange(count, dtype=np.uint64),
        np.arange(count, dtype=np.uint32),
        np.ones(count, np.uint64),
        np.zeros((count, width), np.float32),
        np.zeros((count, 2 * width), np.float32),
        np.ones(count, np.uint8),
    )


@pytest.fixture
def log() -> MemoryLog:
    made = MemoryLog()
    made.partitions = {UPDATES: [[]]}
    return made


@pytest.fixture
async def updates(log: MemoryLog) -> AsyncIterator[Updates]:
    made = Updates(log, "items", 0, 0)
    task = asyncio.create_task(made.run())
    yield made
    task.cancel()
    await asyncio.wait({task})


async def test_room_is_what_states_leave_of_it_however_short_the_log_that_made_them(
    log: MemoryLog, updates: Updates
) -> None:
    log.gate.clear()
    wide = states(100, 1000)
    updates.offer(wide, 1)  # one small frame
    assert updates.held == states_bytes(wide) > 1_200_000
    waiting = asyncio.create_task(updates.wait_for_room(1_000_000))
    for _ in range(20):
        await asyncio.sleep(0)
    assert not waiting.done()
    log.gate.set()
    await waiting
    assert (updates.held, updates.published) == (0, 1)


async def test_a_commit_that_fits_the_window_waits_for_nothing(log: MemoryLog, updates: Updates) -> None:
    log.gate.clear()
    small = states(10, 4)
    updates.offer(small, 1)
    await updates.wait_for_room(states_bytes(small))
    log.gate.set()
    await updates.wait_for(1)


async def test_much_is_framed_and_appended_a_part_at_a_time(log: MemoryLog, updates: Updates) -> None:
    many = states(30_000, 32)
    updates.offer(many, 7)
    await updates.wait_for(7)
    found = [read_update(value, limit=1 << 20) for value in log.values(UPDATES)]
    assert sum(len(each.ids) for each in found if isinstance(each, States)) == 30_000
    assert max(len(value) for value in log.values(UPDATES)) <= FRAME_BYTES + 4096
    assert max(records for _, _, records in log.batches) <= APPEND_BYTES // FRAME_BYTES


async def test_published_moves_in_the_order_of_commits(log: MemoryLog, updates: Updates) -> None:
    log.gate.clear()
    for following in range(1, 6):
        updates.offer(states(2000, 100), following)
    log.gate.set()
    for following in range(1, 6):
        await updates.wait_for(following)
    assert (updates.published, updates.held) == (5, 0)
