"""Control events: typed, signed, told once however often."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from driftline import topics
from driftline.control import (
    Alarm,
    AlarmAnswered,
    BackupsHeld,
    BackupTaken,
    ControlEvent,
    ControlTopic,
    DriftVerdict,
    HeldBackup,
    PersonNeeded,
    RecoveryEnded,
    RecoveryStep,
    RollbackDone,
    RollbackRefused,
    RollbackRequested,
    VersionCommitted,
    VersionRejected,
    event_id,
    read_control,
    write_control,
)
from driftline.errors import FrameError
from driftline.frames.headers import Keyring
from driftline.frames.reasons import Reason
from driftline.log import Outgoing, Record
from tests.support.memory_log import MemoryLog

KEYRING = Keyring.parse("ab" * 32)
EVENTS: list[ControlEvent] = [
    VersionCommitted("V-N-1.0", 3, "main", "N", (), "", {"items": 9}, {"items": 9}, {"accepted": True}),
    VersionRejected(4, "main", "N", "loss is 0.9, parent 0.5", {"accepted": False}),
    BackupTaken(5, "a", {"items": (0, 1)}, True, 4096),
    BackupsHeld("a", 1, {"items": (0, 1)}, (HeldBackup(5, 1_000, 4096, 7),)),
    RollbackRequested("0f" * 16, "items", (1, 2**64 - 1), 5),
    RollbackDone("0f" * 16, "items", 5, (0,), 1, (1,), (9,)),
    RollbackRefused("0f" * 16, (1,), "no backup 5"),
    DriftVerdict(
        9,
        "items",
        (0, 1),
        2,
        "a",
        1_000,
        8,
        "auto",
        "alarm",
        "guard",
        "full_rollback",
        (2**64 - 1,),
        1,
        9,
        8,
        {"rows": 5, "why": "5 rows with NaN or infinity"},
        {"0f" * 16: [100, 0.5, 0.75]},
    ),
    Alarm(
        9,
        "items",
        "guard",
        "full_rollback",
        "auto",
        9,
        8,
        {"items": (1, 2)},
        ("verdict/9/items/0-1",),
        "",
        "a",
    ),
    AlarmAnswered(9, "approve", "ann", "yes", "0f" * 16),
    RecoveryStep(9, 1, "preparing", "a", "newest version before the onset", {"version": "V-R-1.0", "op": 12}),
    RecoveryEnded(9, "restored", "a", "", "V-R-1.0", {"op": 13}),
    PersonNeeded(9, "no version is older than the onset", {"onset": 9}),
]


def record_of(outgoing: Outgoing) -> Record:
    return Record(7, 1_234, outgoing.key, outgoing.value, outgoing.headers)


@pytest.mark.parametrize("event", EVENTS, ids=lambda each: each.TYPE)
def test_what_is_told_is_read_again(event: ControlEvent) -> None:
    told = read_control(record_of(write_control("g", event, KEYRING, 1.5)), KEYRING)
    assert (told.event, told.group, told.id, told.offset, told.time) == (
        event,
        "g",
        event_id(event),
        7,
        1_234,
    )


@pytest.mark.parametrize("event", EVENTS, ids=lambda each: each.TYPE)
def test_records_carry_cloud_events_attributes(event: ControlEvent) -> None:
    headers = dict(write_control("g", event, KEYRING, 1.5).headers)
    assert headers["ce_type"] == f"driftline.{event.TYPE}".encode()
    assert headers["ce_id"] == event_id(event).encode()
    assert headers["ce_source"] == b"group/g"
    assert headers["ce_time"] == b"1970-01-01T00:00:01.500+00:00"
    assert headers["content-type"] == b"application/json"


def test_the_same_fact_has_the_same_id_whenever_it_is_told() -> None:
    first, second = (write_control("g", EVENTS[0], KEYRING, at) for at in (1.0, 2.0))
    assert dict(first.headers)["ce_id"] == dict(second.headers)["ce_id"]


def test_an_event_signed_by_nobody_is_forged() -> None:
    told = write_control("g", EVENTS[4], Keyring.parse("cd" * 32), 1.0)
    for record in (record_of(told), replace(record_of(told), headers=())):
        with pytest.raises(FrameError) as refused:
            read_control(record, KEYRING)
        assert refused.value.reason == Reason.FORGED


@given(at=st.integers(0, 10_000), bit=st.integers(0, 7))
def test_a_changed_event_is_forged(at: int, bit: int) -> None:
    record = record_of(write_control("g", EVENTS[4], KEYRING, 1.0))
    changed = bytearray(record.value)
    changed[at % len(changed)] ^= 1 << bit
    with pytest.raises(FrameError):
        read_control(replace(record, value=bytes(changed)), KEYRING)


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (b"{", Reason.UNDECODABLE),
        (b"[]", Reason.UNDECODABLE),
        (orjson.dumps({"type": "moon", "id": "", "group": "g", "data": {}}), Reason.UNKNOWN_TYPE),
        (orjson.dumps({"type": "version.rejected", "id": "", "group": "g", "data": {}}), Reason.UNDECODABLE),
    ],
)
def test_what_is_no_event_is_refused_with_its_reason(value: bytes, reason: Reason) -> None:
    with pytest.raises(FrameError) as refused:
        read_control(Record(0, 0, None, value, KEYRING.sign(value)), KEYRING)
    assert refused.value.reason == reason


def test_a_reader_sees_the_events_of_its_group_and_passes_others_over() -> None:
    async def run() -> None:
        log = MemoryLog()
        mine, other = ControlTopic(log, "g", KEYRING), ControlTopic(log, "h", KEYRING)
        await mine.create()
        await other.tell(EVENTS[0])
        await log.append(topics.control(), 0, [Outgoing(b"noise")])
        start = await mine.tell(*EVENTS)
        reader = await mine.reader(0)
        assert [told.event for told in await reader.read()] == EVENTS
        assert (start, reader.passed_over, reader.position) == (2, 1, 2 + len(EVENTS))

    asyncio.run(run())
