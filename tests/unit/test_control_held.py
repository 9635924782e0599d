"""Backups in memory as the control topic tells of them, and rows put back from one."""

from __future__ import annotations

import asyncio

import numpy as np
import pytest

from driftline import topics
from driftline.control import (
    BackupsHeld,
    ControlEvent,
    ControlTopic,
    HeldBackup,
    RollbackDone,
    RollbackRefused,
    RollbackRequested,
)
from driftline.control.held import PutBack, held_backups, put_back, told_of
from driftline.errors import InputError, TimedOutError
from driftline.frames.headers import Keyring
from driftline.ids import shard_of
from driftline.log import Outgoing
from tests.support.memory_log import MemoryLog

KEYRING = Keyring.parse("ab" * 32)
OTHER = Keyring.parse("cd" * 32)
FIVE, SEVEN = HeldBackup(5, 1_000, 100, 2), HeldBackup(7, 2_000, 50, 1)


async def told(*events: ControlEvent) -> MemoryLog:
    log = MemoryLog()
    topic = ControlTopic(log, "g", KEYRING, lambda: 1.0)
    await topic.create()
    for event in events:
        await topic.tell(event)
    return log


async def test_the_last_statement_on_a_shard_counts() -> None:
    log = await told(
        BackupsHeld("a", 1, {"items": (0, 1)}, (FIVE,)),
        BackupsHeld("b", 1, {"items": (1,)}, (SEVEN,)),  # shard 1 has moved
        BackupsHeld("a", 2, {"items": (0,)}, (FIVE, SEVEN)),
    )
    five, seven = held_backups(await told_of(log, "g"))
    assert (five.op, five.tables, five.whole) == (5, {"items": (0,)}, False)
    assert (seven.op, seven.tables, seven.whole) == (7, {"items": (0, 1)}, True)
    assert (seven.bytes, seven.rows, seven.time) == (100, 2, 2_000)


async def test_other_groups_and_records_that_are_no_events_are_not_shown() -> None:
    log = await told(BackupsHeld("a", 1, {"items": (0,)}, (FIVE,)))
    await log.append(topics.control(), 0, [Outgoing(b"hello")])
    await ControlTopic(log, "other", KEYRING, lambda: 1.0).tell(BackupsHeld("z", 1, {"x": (0,)}, (SEVEN,)))
    assert [each.op for each in held_backups(await told_of(log, "g"))] == [5]


async def test_without_a_control_topic_nothing_is_held_and_none_is_made() -> None:
    log = MemoryLog()
    assert await told_of(log, "g") == []
    assert await log.topics() == {}


IDS = list(range(20))
SHARES = [[row for row in IDS if shard_of(np.array([row], np.uint64), 2)[0] == shard] for shard in (0, 1)]


async def ask(log: MemoryLog, *answers: type[RollbackDone] | type[RollbackRefused]) -> PutBack:
    """Ask for rows, and answer for each shard as told."""
    topic = ControlTopic(log, "g", KEYRING, lambda: 1.0)

    async def answer() -> None:
        reader = await topic.reader(0)
        while True:
            for each in await reader.read(wait=1.0):
                if isinstance(each.event, RollbackRequested):
                    request = each.event.request
                    for shard, kind in enumerate(answers):
                        if kind is RollbackDone:
                            done = RollbackDone(
                                request, "items", 5, (shard,), len(SHARES[shard]), (99,), (30 + shard,)
                            )
                            await topic.tell(done)
                        else:
                            await topic.tell(RollbackRefused(request, (shard,), "backup 5 is not in memory"))
                    return

    answering = asyncio.create_task(answer())
    try:
        return await put_back(topic, "items", 2, IDS, 5, timeout=0.5)
    finally:
        answering.cancel()


async def test_rows_are_put_back_when_every_shard_has_answered() -> None:
    assert await ask(await told(), RollbackDone, RollbackDone) == PutBack(20, (99, 99), (30, 31))


async def test_a_refusal_says_why() -> None:
    with pytest.raises(InputError, match="backup 5 is not in memory"):
        await ask(await told(), RollbackDone, RollbackRefused)


async def test_shards_that_nobody_answers_for_are_named() -> None:
    with pytest.raises(TimedOutError, match=r"shards \[1\] of items .* does a versioner run"):
        await ask(await told(), RollbackDone)


async def test_an_answer_signed_by_another_deployment_is_none() -> None:
    log = await told()
    forger = ControlTopic(log, "g", OTHER, lambda: 1.0)

    async def forge() -> None:
        reader = await ControlTopic(log, "g", KEYRING, lambda: 1.0).reader(0)
        while not (found := await reader.read(wait=1.0)):
            continue
        assert isinstance(found[0].event, RollbackRequested)
        await forger.tell(RollbackDone(found[0].event.request, "items", 5, (0, 1), 20, (), (9,)))

    forging = asyncio.create_task(forge())
    with pytest.raises(TimedOutError):
        await put_back(ControlTopic(log, "g", KEYRING, lambda: 1.0), "items", 2, IDS, 5, timeout=0.5)
    await forging
