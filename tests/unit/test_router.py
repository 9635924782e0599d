"""The router: op n is in every partition before op n+1 is in any."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import pytest

from driftline import topics
from driftline.errors import LogUnavailableError
from driftline.frames.events import (
    BARRIER,
    PREPARE,
    RESTORE,
    RESTORE_ROWS,
    SPEC,
    Op,
    Origin,
    read_event,
    write_event,
)
from driftline.ids import OPS_PRODUCER, shard_of
from driftline.log import Outgoing, Record
from driftline.ops.catalogue import Born, Catalogue
from driftline.ops.requests import Signer
from driftline_services.aggregator import appending
from driftline_services.aggregator import router as router_module
from driftline_services.aggregator.router import Router, resume_offset
from tests.support.memory_log import MemoryLog
from tests.support.samples import KEYRING, STRANGER, TABLE, P, u64

SIGNER = Signer("default", P, KEYRING)
USERS = replace(TABLE, name="users", shards=3)


@pytest.fixture(autouse=True)
def _no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(appending, "_BACK_OFF", (0.0,))


class Rig:
    """An ops log with a catalogue and a router on it."""

    def __init__(self, log: MemoryLog | None = None) -> None:
        self.log = log or MemoryLog()
        self.log.partitions = {"default.ops": [[]], "default.ops.dlq": [[]]}
        self.catalogue = Catalogue(self.log, "default", KEYRING)
        self.router = Router(self.log, "default", KEYRING, self.catalogue.tables)

    async def ask(self, kind: str, target: str, body: dict[str, object] | None = None) -> Record:
        """Ask for an op, and let catalogue and router see it as the aggregator does."""
        return await self.put(SIGNER.request(kind, target, body or {}, self.end).value)

    @property
    def end(self) -> int:
        return len(self.log.partitions["default.ops"][0])

    async def put(self, value: bytes, *, signed: bool = True) -> Record:
        offset = self.end
        headers = KEYRING.sign(value) if signed else STRANGER.sign(value)
        record = Record(offset, 0, None, value, headers)
        self.log.put("default.ops", 0, [record])
        await self.catalogue.note(record)
        await self.router.forward(record)
        return record

    def forwarded(self, table: str, shard: int) -> list[Op]:
        found: list[Op] = []
        for record in self.log.partitions[topics.gradients(table)][shard]:
            assert KEYRING.verifies(record.value, record.headers)
            event = read_event(record.value, limit=1 << 20)
            assert isinstance(event, Op)
            assert (event.table, event.shard, event.origin.producer) == (table, shard, OPS_PRODUCER)
            found.append(event)
        return found

    def refused(self) -> list[str]:
        return [dict(r.headers)["dl-reason"].decode() for r in self.log.partitions["default.ops.dlq"][0]]


@pytest.fixture
async def rig() -> Rig:
    made = Rig()
    for spec in (TABLE, USERS):
        await made.ask(SPEC, spec.name, spec.to_json())
    return made


async def test_a_spec_makes_the_topics_and_opens_every_partition(rig: Rig) -> None:
    for topic in (topics.gradients("users"), topics.updates("users"), topics.dead_letters("users")):
        assert len(rig.log.partitions[topic]) == 3
    for shard in range(3):
        (op,) = rig.forwarded("users", shard)
        assert (op.kind, op.origin.seq, op.body) == (SPEC, 2, USERS.to_json())


async def test_a_barrier_reaches_every_shard_of_every_table_under_its_number(rig: Rig) -> None:
    await rig.ask(BARRIER, "default", {"kind": "version"})
    for table, shard in [("items", 0), ("items", 1), ("users", 0), ("users", 1), ("users", 2)]:
        last = rig.forwarded(table, shard)[-1]
        assert (last.kind, last.origin.seq, last.body) == (BARRIER, 3, {"kind": "version"})


async def test_an_op_passes_tables_by_that_were_born_after_it(rig: Rig) -> None:
    record = await rig.ask(BARRIER, "default")
    late = replace(TABLE, name="late")
    await rig.ask(SPEC, "late", late.to_json())
    await rig.router.forward(record)  # a router that starts again repeats ops
    assert [op.kind for op in rig.forwarded("late", 0)] == [SPEC]
    assert [op.origin.seq for op in rig.forwarded("items", 0)] == [1, 3, 3]


async def test_restore_rows_are_split_by_shard_and_all_shards_see_the_number(rig: Rig) -> None:
    ids = u64([1, 2, 3])
    rows, state = np.arange(6, dtype=np.float32).reshape(3, 2), np.zeros((3, 0), np.float32)
    op = Op(RESTORE_ROWS, "users", 0, Origin(P, 0, 0), {}, ids, rows, state)
    await rig.put(SIGNER.sign(op, rig.end).value)
    for shard in range(3):
        last = rig.forwarded("users", shard)[-1]
        mine = shard_of(ids, 3) == shard
        assert last.origin.seq == 3
        assert last.rows is not None
        assert (last.ids.tolist(), last.rows.tolist()) == (ids[mine].tolist(), rows[mine].tolist())
    assert [op.kind for op in rig.forwarded("items", 0)] == [SPEC]


async def test_a_restore_tells_each_table_its_own_epoch_or_that_the_version_lacks_it(rig: Rig) -> None:
    body = {"version": "V-N-1.0", "prepare": 3, "from_epoch": {"items": 4}, "mode": "rollback"}
    await rig.ask(PREPARE, "default", {"version": "V-N-1.0"})
    await rig.ask(RESTORE, "default", body)
    told = {"version": "V-N-1.0", "prepare": 3, "mode": "rollback"}
    assert rig.forwarded("items", 1)[-1].body == told | {"from_epoch": 4}
    assert rig.forwarded("users", 2)[-1].body == told | {"absent": True}
    assert rig.forwarded("users", 2)[-2].body == {"version": "V-N-1.0"}


@pytest.mark.parametrize(
    "wrong", [{"version": ""}, {"mode": "back"}, {"from_epoch": 1}, {"from_epoch": {"items": True}}]
)
async def test_a_restore_that_makes_no_sense_is_refused(rig: Rig, wrong: dict[str, object]) -> None:
    body = {"version": "V-N-1.0", "prepare": 3, "from_epoch": {"items": 0}, "mode": "rollback"}
    await rig.ask(RESTORE, "default", body | wrong)
    assert rig.refused() == ["bad_op"]


async def test_what_is_no_op_goes_to_the_refused_ones_and_to_no_shard(rig: Rig) -> None:
    good = SIGNER.request(BARRIER, "default", {}, 0).value
    unknown = Op(
        RESTORE_ROWS, "nobody", 0, Origin(P, 0, 0), {}, u64([1]), np.ones((1, 2), "f4"), np.ones((1, 0), "f4")
    )
    await rig.put(b"garbage!")
    await rig.put(good, signed=False)
    await rig.put(SIGNER.sign(unknown, rig.end).value)
    await rig.ask(RESTORE, "default", {"from_epoch": 0})
    await rig.ask(SPEC, "x", {**TABLE.to_json(), "name": "x", "group": "other"})
    await rig.ask(SPEC, "x", {**TABLE.to_json(), "name": "x", "optimizer": "sgd"})
    await rig.ask(SPEC, "items", {**TABLE.to_json(), "shards": 8})
    reasons = ["undecodable", "forged", "unknown_table", "bad_op", "bad_spec", "bad_spec", "bad_spec"]
    assert rig.refused() == reasons
    assert len(rig.forwarded("items", 0)) == 1
    await rig.ask(BARRIER, "default")  # the refused change of shards left the table as it was
    assert [op.origin.seq for op in rig.forwarded("items", 1)] == [1, 10]


async def test_a_captured_request_is_refused_by_every_router_and_by_the_catalogue(rig: Rig) -> None:
    slower = replace(TABLE, optimizer={"kind": "sgd", "lr": 0.25})
    captured = (await rig.ask(SPEC, "items", TABLE.to_json())).value
    await rig.ask(SPEC, "items", slower.to_json())
    await rig.put(captured)
    assert rig.refused() == ["replayed_op"]
    assert rig.router.refused == {"replayed_op": 1}
    assert rig.catalogue.tables["items"].spec == slower
    before = len(rig.forwarded("items", 0))

    successor = Router(rig.log, "default", KEYRING, rig.catalogue.tables)
    await successor.begin(rig.end)
    rig.router = successor
    again = await rig.put(captured)
    assert rig.refused() == ["replayed_op"] * 2
    assert len(rig.forwarded("items", 0)) == before

    late = Catalogue(rig.log, "default", KEYRING)
    await late.catch_up()
    assert late.tables["items"].spec == slower
    assert again.offset == rig.end - 1


async def test_a_successor_forwards_again_what_its_predecessor_may_not_have(rig: Rig) -> None:
    record = await rig.ask(BARRIER, "default")
    successor = Router(rig.log, "default", KEYRING, rig.catalogue.tables)
    await successor.begin(record.offset)
    await successor.forward(record)
    assert [op.origin.seq for op in rig.forwarded("items", 0)] == [1, 3, 3]
    assert not rig.refused()


async def test_a_router_may_begin_behind_the_end_of_its_log(rig: Rig) -> None:
    await rig.router.begin(1000)  # the worker stops where it is told to read from there


async def test_a_request_of_another_group_with_the_same_key_is_forged(rig: Rig) -> None:
    await rig.put(Signer("other", P, KEYRING).request(BARRIER, "default", {}, rig.end).value)
    assert rig.refused() == ["forged"]


async def test_a_request_without_an_id_is_refused(rig: Rig) -> None:
    op = Op(BARRIER, "default", 0, Origin(P, 0, 0), {})
    await rig.put(write_event(op, more={"group": "default", "behind": "0"}))
    await rig.put(write_event(op, more={"group": "default", "request": "ab" * 16}))
    assert rig.refused() == ["undecodable"] * 2


async def test_an_absent_log_is_waited_out(rig: Rig) -> None:
    rig.log.faults.extend([(LogUnavailableError("down"), False)] * 2)
    await rig.ask(BARRIER, "default")
    assert rig.forwarded("items", 0)[-1].kind == BARRIER


def test_a_router_resumes_at_the_first_op_that_some_shard_has_not_seen() -> None:
    tables = {"items": Born(TABLE, 0), "users": Born(USERS, 4)}
    seen = {("items", 0): 7, ("items", 1): 6, ("users", 0): 7, ("users", 1): 7}
    assert resume_offset(tables, seen) == 4  # users:2 has not even seen its birth
    assert resume_offset(tables, seen | {("users", 2): 9}) == 6
    assert resume_offset({}, {}) is None


class Flaky(MemoryLog):
    """A log that can be asked to be away."""

    away = False

    async def topics(self) -> Mapping[str, int]:
        if self.away:
            raise LogUnavailableError("no broker")
        return await super().topics()

    async def append(self, topic: str, partition: int, records: Sequence[Outgoing]) -> int:
        if self.away:
            raise LogUnavailableError("no broker")
        return await super().append(topic, partition, records)


class Ticking:
    """A clock that goes on by a second each time it is asked."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        self.now += 1.0
        return self.now


@pytest.fixture
async def flaky(monkeypatch: pytest.MonkeyPatch) -> Rig:
    """A rig whose router asks without waiting whether a topic is there."""
    monkeypatch.setattr(router_module, "_PROMPT", 0.02)
    monkeypatch.setattr(router_module, "_ASK_AGAIN", 0.001)
    made = Rig(Flaky())
    made.router = Router(made.log, "default", KEYRING, made.catalogue.tables, grace=10.0, now=Ticking())
    for spec in (TABLE, USERS):
        await made.ask(SPEC, spec.name, spec.to_json())
    return made


async def test_a_table_whose_topic_does_not_exist_is_passed_over_and_the_op_put_with_the_refused(
    flaky: Rig,
) -> None:
    del flaky.log.partitions[topics.gradients("users")]
    await flaky.ask(BARRIER, "default")
    assert flaky.forwarded("items", 0)[-1].origin.seq == 3
    assert flaky.refused() == ["no_topic"]
    assert list(flaky.router.gone) == ["users"]
    assert "users.gradients does not exist" in flaky.router.gone["users"]


async def test_once_a_topic_is_known_not_to_exist_later_ops_do_not_wait_for_it(flaky: Rig) -> None:
    del flaky.log.partitions[topics.gradients("users")]
    await flaky.ask(BARRIER, "default")
    flaky.router._now = lambda: pytest.fail("the grace is over")
    await flaky.ask(BARRIER, "default")
    assert flaky.forwarded("items", 1)[-1].origin.seq == 4
    assert flaky.refused() == ["no_topic"] * 2


async def test_a_topic_that_is_there_again_is_forwarded_to(flaky: Rig) -> None:
    partitions = flaky.log.partitions.pop(topics.gradients("users"))
    await flaky.ask(BARRIER, "default")
    flaky.log.partitions[topics.gradients("users")] = partitions
    await flaky.router.look_again()
    assert flaky.router.gone == {}
    await flaky.ask(BARRIER, "default")
    assert [op.origin.seq for op in flaky.forwarded("users", 2)] == [2, 4]


async def test_a_topic_that_comes_back_within_the_grace_is_waited_for(flaky: Rig) -> None:
    partitions = flaky.log.partitions.pop(topics.gradients("users"))
    flaky.router._grace = 1e9
    asked = asyncio.ensure_future(flaky.ask(BARRIER, "default"))
    for _ in range(50):
        await asyncio.sleep(0)
    flaky.log.partitions[topics.gradients("users")] = partitions
    await asked
    assert [op.origin.seq for op in flaky.forwarded("users", 0)] == [2, 3]
    assert flaky.refused() == []


async def test_a_broker_that_is_away_is_waited_for_however_long(flaky: Rig) -> None:
    assert isinstance(flaky.log, Flaky)
    clock = Ticking()
    flaky.router._now = clock
    flaky.log.away = True
    asked = asyncio.ensure_future(flaky.ask(BARRIER, "default"))
    async with asyncio.timeout(0.5):
        while not asked.done() and len(flaky.log.batches) < 3:
            await asyncio.sleep(0.01)
            clock.now += 100.0
            if clock.now > 1000.0:
                break
    assert not asked.done()
    flaky.log.away = False
    await asked
    assert flaky.forwarded("users", 0)[-1].origin.seq == 3
    assert flaky.refused() == []
