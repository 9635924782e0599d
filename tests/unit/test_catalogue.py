"""Ops as they are asked for, and the catalogue of tables they make."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from driftline.errors import FrameError
from driftline.frames.events import BARRIER, SPEC, Op
from driftline.log import Outgoing, Record
from driftline.ops.catalogue import Catalogue
from driftline.ops.requests import MAX_BODY, Signer, op_number, read_op
from driftline.shard.spec import TableSpec
from tests.support.memory_log import MemoryLog
from tests.support.samples import KEYRING, STRANGER, TABLE, P, gradient, record

OPS = "default.ops"
SIGNER = Signer("default", P, KEYRING)


def asked(kind: str = BARRIER, body: dict[str, object] | None = None) -> Record:
    outgoing = SIGNER.request(kind, "items", body or {}, 0)
    return Record(0, 0, None, outgoing.value, outgoing.headers)


def birth(spec: TableSpec) -> Outgoing:
    return SIGNER.request(SPEC, spec.name, spec.to_json(), 0)


def test_a_request_reads_back_as_the_op_asked_for() -> None:
    op = read_op(asked(BARRIER, {"kind": "version"}), KEYRING, "default").op
    assert (op.kind, op.table, op.body, op.origin.producer) == (BARRIER, "items", {"kind": "version"}, P)


def test_an_op_has_the_number_behind_its_offset() -> None:
    assert (op_number(0), op_number(41)) == (1, 42)


def test_nothing_unsigned_is_an_op() -> None:
    good = asked()
    for forged in (
        replace(good, headers=()),
        replace(good, value=asked(SPEC).value),
        record(gradient([1], 1), 0),
    ):
        with pytest.raises(FrameError, match="forged"):
            read_op(forged, KEYRING, "default")
    with pytest.raises(FrameError, match="forged"):
        read_op(good, STRANGER, "default")


def test_a_body_that_markers_could_not_repeat_is_refused_on_both_sides() -> None:
    SIGNER.request(BARRIER, "items", {"x": "a" * (MAX_BODY - 8)}, 0)
    with pytest.raises(FrameError, match="oversized"):
        SIGNER.request(BARRIER, "items", {"x": "a" * (MAX_BODY - 7)}, 0)
    value = record(Op(BARRIER, "items", 0, gradient([], 0).origin, {"x": "a" * MAX_BODY}), 0)
    with pytest.raises(FrameError, match="oversized"):
        read_op(value, KEYRING, "default")


class Rig:
    def __init__(self) -> None:
        self.log = MemoryLog()
        self.log.partitions[OPS] = [[]]
        self.announced: list[str] = []
        self.catalogue = Catalogue(self.log, "default", KEYRING, self._announce)

    async def _announce(self, spec: TableSpec) -> None:
        self.announced.append(spec.name)

    async def ask(self, *records: Outgoing) -> None:
        await self.log.append(OPS, 0, records)


@pytest.fixture
def rig() -> Rig:
    return Rig()


async def test_catching_up_finds_every_table_and_where_it_was_born(rig: Rig) -> None:
    users = replace(TABLE, name="users")
    await rig.ask(birth(TABLE), SIGNER.request(BARRIER, "default", {}, 0), birth(users))
    await rig.catalogue.catch_up()
    assert {name: (b.spec, b.offset) for name, b in rig.catalogue.tables.items()} == {
        "items": (TABLE, 0),
        "users": (users, 2),
    }
    assert rig.announced == ["items", "users"]


async def test_a_changed_spec_replaces_the_old_one_and_is_no_new_table(rig: Rig) -> None:
    faster = replace(TABLE, optimizer={"kind": "sgd", "lr": 0.9})
    await rig.ask(birth(TABLE), birth(faster))
    await rig.catalogue.catch_up()
    assert (rig.catalogue.tables["items"].spec, rig.catalogue.tables["items"].offset) == (faster, 0)
    assert rig.announced == ["items"]


async def test_a_change_that_shards_refuse_does_not_reach_the_catalogue(rig: Rig) -> None:
    await rig.ask(birth(TABLE), birth(replace(TABLE, shards=8)), birth(replace(TABLE, dim=3)))
    await rig.catalogue.catch_up()
    assert rig.catalogue.tables["items"].spec == TABLE


async def test_what_is_no_valid_spec_of_this_group_is_passed_over(rig: Rig) -> None:
    bodies: list[dict[str, object]] = [{}, {**TABLE.to_json(), "optimizer": "sgd"}]
    await rig.ask(
        Outgoing(b"garbage"),
        Outgoing(birth(TABLE).value),  # unsigned
        birth(replace(TABLE, group="other")),
        *(SIGNER.request(SPEC, "items", body, 0) for body in bodies),
    )
    await rig.catalogue.catch_up()
    assert rig.catalogue.tables == {}


async def test_a_record_noted_twice_changes_nothing(rig: Rig) -> None:
    await rig.ask(birth(TABLE))
    (noted,) = rig.log.partitions[OPS][0]
    await rig.catalogue.note(noted)
    await rig.catalogue.catch_up()
    assert rig.announced == ["items"]


async def test_following_announces_tables_as_they_appear(rig: Rig) -> None:
    following = asyncio.create_task(rig.catalogue.follow())
    await rig.ask(birth(TABLE))
    async with asyncio.timeout(5):
        while not rig.announced:
            await asyncio.sleep(0)
    following.cancel()
    await asyncio.gather(following, return_exceptions=True)
    await rig.catalogue.close()
    assert rig.announced == ["items"]
