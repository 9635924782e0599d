"""Backups in memory as the control topic tells of them, and rows put back from one."""

from __future__ import annotations

from driftline import topics
from driftline.control import (
    BackupsHeld,
    ControlEvent,
    ControlTopic,
    HeldBackup,
)
from driftline.control.held import held_backups, told_of
from driftline.frames.headers import Keyring
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
