"""Restores of one shard on a real Redis: its owner dies at every step, and the outcome is the same."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import replace

import numpy as np
import orjson
import pytest

from driftline import topics
from driftline.errors import DriftlineError, FenceLostError, ObjectMissingError, StoreUnavailableError
from driftline.frames.events import Event
from driftline.frames.states import Marker, read_update
from driftline.log.base import Record
from driftline.rows import resp
from driftline.rows.connection import RedisConnection, Reply
from driftline.rows.fields import read_fields
from driftline.rows.layout import ShardKeys
from driftline.rows.resp import Bytes
from driftline.rows.shard_store import ShardStore
from driftline.rows.source import VersionPart, VersionPlace
from driftline.servers import RedisServer
from driftline.shard.cache import RowBlock
from driftline.shard.machine import Shard
from driftline.shard.plan import PendingOp
from driftline.shard.restore import VersionRows
from driftline.shard.spec import TableSpec
from driftline_services.aggregator import restoring
from driftline_services.aggregator.runner import ShardRunner
from tests.support.memory_log import MemoryLog
from tests.support.samples import KEYRING, MINE, TABLE, feed, gradient, log_of, op, u64

IDS = MINE[:7]
ADAM = replace(TABLE, optimizer={"kind": "adam"})
UPDATES, DEAD, GRADIENTS = topics.updates("items"), topics.dead_letters("items"), topics.gradients("items")
VERSION = "V-N-1.0"


class Versions:
    """One version: the shard after its first records; fails on order."""

    def __init__(self, spec: TableSpec) -> None:
        shard = Shard("items", 0, KEYRING)
        feed(shard, log_of([gradient(IDS, 1)], table=spec))
        slots = np.flatnonzero(shard.cache.alive[: shard.cache.used])
        cache = shard.cache
        self.block = RowBlock(
            cache.ids[slots],
            np.ones(len(slots), bool),
            cache.rows[slots],
            cache.state[slots],
            cache.lsn[slots],
            cache.ordinals[slots],
        )
        self.spec, self.errors, self.opened = spec, list[DriftlineError](), 0
        self.gate = asyncio.Event()
        self.gate.set()

    async def part(self, version: str, table: str, shard: int) -> VersionPart | None:
        self.opened += 1
        await self.gate.wait()
        if self.errors:
            raise self.errors.pop(0)
        assert version == VERSION
        spec = self.spec
        return VersionPart(len(self.block.ids), len(self.block.ids), spec.dim, spec.state_size, self._blocks)

    async def newest(self, table: str, shard: int) -> VersionPlace | None:
        return None

    async def deployed(self) -> frozenset[str]:
        return frozenset()

    async def _blocks(self) -> AsyncIterator[RowBlock]:
        b = self.block
        for begin in range(0, len(b.ids), 3):
            at = slice(begin, begin + 3)
            yield RowBlock(b.ids[at], b.present[at], b.rows[at], b.state[at], b.lsn[at], b.ordinals[at])


class Dying:
    """Connections of a process that dies at its n-th exchange: before it is sent, or before the reply."""

    def __init__(self, url: str, at: int | None, after: bool) -> None:
        self.url, self.left, self.after = url, at, after
        self.dead = asyncio.Event()
        self.last = b""  # what it was at when it died
        self.fault: Callable[[Sequence[Bytes]], str | None] = lambda packed: None

    async def connect(self) -> DyingConnection:
        return DyingConnection(self, await RedisConnection.open(self.url))

    async def step(self, packed: Sequence[Bytes]) -> bool:
        """Count a step; True when it is the last one, and is to be carried out yet."""
        if self.dead.is_set():
            await asyncio.Event().wait()
        if self.left is None:
            return False
        self.left -= 1
        if self.left >= 0:
            return False
        self.last = b"".join(packed)
        self.dead.set()
        if self.after:
            return True
        await asyncio.Event().wait()
        return False


class DyingConnection:
    def __init__(self, process: Dying, connection: RedisConnection) -> None:
        self._process, self._connection = process, connection

    async def exchange(self, packed: Sequence[Bytes], replies: int) -> list[Reply]:
        last = await self._process.step(packed)
        fault = self._process.fault(packed)
        if fault == "before":
            raise StoreUnavailableError("cut before it was sent")
        answers = await self._connection.exchange(packed, replies)
        if last:
            await asyncio.Event().wait()
        if fault == "after":
            raise StoreUnavailableError("cut before the reply")
        return answers

    async def close(self) -> None:
        await self._connection.close()


class Rig:
    def __init__(self, url: str, spec: TableSpec) -> None:
        self.url, self.spec, self.keys = url, spec, ShardKeys.of("items", 0)
        self.log = MemoryLog()
        self.log.partitions = {topic: [[], []] for topic in (GRADIENTS, UPDATES, DEAD)}
        self.versions = Versions(spec)
        self.runners: list[ShardRunner] = []
        self._owners = itertools.count()

    def write(self, events: list[Event | bytes]) -> list[Record]:
        records = log_of(events, table=self.spec)
        self.log.partitions[GRADIENTS][0] = list(records)
        return records

    def process(self, at: int | None = None, *, after: bool = False) -> Dying:
        return Dying(self.url, at, after)

    def runner(self, process: Dying) -> ShardRunner:
        store = ShardStore(process.connect, self.keys, b"owner:%d" % next(self._owners))
        made = ShardRunner("items", 0, store=store, log=self.log, keyring=KEYRING, versions=self.versions)
        self.runners.append(made)
        return made

    async def live(self, process: Dying, records: Sequence[Record]) -> ShardRunner | None:
        """Take the shard over and apply what there is; None if the process died of it."""
        runner = self.runner(process)

        async def work() -> None:
            start = await runner.start()
            await runner.apply([record for record in records if record.offset >= start])
            await runner.drain()

        working = asyncio.ensure_future(work())
        dying = asyncio.ensure_future(process.dead.wait())
        await asyncio.wait({working, dying}, return_when=asyncio.FIRST_COMPLETED)
        if working.done():
            dying.cancel()
            await working
            return runner
        working.cancel()
        await asyncio.gather(working, return_exceptions=True)
        await asyncio.wait_for(runner.close(), 5)
        return None

    async def ask(self, *command: bytes) -> Reply:
        connection = await RedisConnection.open(self.url)
        (reply,) = await connection.exchange([resp.command(*command)], 1)
        await connection.close()
        return reply

    async def image(self) -> tuple[dict[bytes, bytes], dict[bytes, bytes], dict[bytes, bytes]]:
        """Return rows, states, and what of the position comes from the log."""
        found = []
        for key in (self.keys.values, self.keys.state, self.keys.position):
            flat = await self.ask(b"HGETALL", key)
            assert isinstance(flat, list)
            parts = [part for part in flat if isinstance(part, bytes)]
            found.append(dict(zip(parts[::2], parts[1::2], strict=True)))
        return found[0], found[1], {n: v for n, v in found[2].items() if n not in (b"owner", b"published")}

    async def copies(self) -> list[bytes]:
        keys = await self.ask(b"KEYS", b"*.next.*")
        assert isinstance(keys, list)
        return [key for key in keys if isinstance(key, bytes)]

    async def field(self, name: bytes) -> bytes | None:
        return (await read_fields(self.process().connect, self.keys, name))[0]

    def markers(self) -> list[Marker]:
        found = [read_update(value, limit=1 << 20) for value in self.log.values(UPDATES)]
        return [each for each in found if isinstance(each, Marker)]


@pytest.fixture(autouse=True)
def _no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(restoring, "_TRY_AGAIN", (0.01,))


@pytest.fixture(params=[TABLE, ADAM], ids=["inline state", "separate state"])
async def rig(request: pytest.FixtureRequest, redis_factory: Callable[[], RedisServer]) -> AsyncIterator[Rig]:
    made = Rig(redis_factory().url, request.param)
    yield made
    for runner in made.runners:
        await runner.close()


def restore(number: int, epoch: int = 0, **more: object) -> Event:
    return op("restore", number, {"version": VERSION, "from_epoch": epoch, "mode": "rollback", **more})


def story() -> list[Event | bytes]:
    return [
        gradient(IDS, 1),
        op("prepare", 2, {"version": VERSION}),
        gradient(IDS[:3], 2),
        restore(3),
        gradient(IDS[:2], 3),
    ]


def expected(rig: Rig, records: Sequence[Record]) -> Shard:
    """Return the shard as a replay gives it."""
    shard, rest = Shard("items", 0, KEYRING), list(records)
    while rest:
        plan = shard.screen(rest)
        shard.apply(plan, None)
        if plan.op is not None:
            block = rig.versions.block
            shard.apply_op(plan.op, VersionRows(len(block.ids), len(block.ids), [block]))
        rest = rest[plan.consumed :]
    return shard


async def check(rig: Rig, records: Sequence[Record]) -> None:
    values, states, position = await rig.image()
    shard = expected(rig, records)
    stored = shard.states_of(u64(IDS))
    assert len(values) == shard.position.rows
    at = 4 * rig.spec.dim
    for n, row in enumerate(IDS):
        value = values[row.to_bytes(8, "little")]
        assert value[:at] == stored.rows[n].tobytes()
        assert value[at : at + 8] == int(stored.lsn[n]).to_bytes(8, "little")
        assert value[at + 8 : at + 12] == int(stored.ordinals[n]).to_bytes(4, "little")
        if states:
            assert states[row.to_bytes(8, "little")] == stored.state[n].tobytes()
    fields = {name: value for name, value in position.items() if name != b"version"}
    assert fields == shard.position.fields()


async def test_a_restore_swaps_the_version_in_and_leaves_nothing_behind(rig: Rig) -> None:
    records = rig.write(story())
    runner = await rig.live(rig.process(), records)
    assert runner is not None
    await check(rig, records)
    assert await rig.copies() == []
    said = await rig.field(b"version")
    assert said is not None
    assert orjson.loads(said) == {"op": 3, "version": VERSION, "mode": "rollback"}
    assert (runner.progress.stats.restores, runner.progress.stats.skipped_restores) == (1, 0)
    marker = next(each for each in rig.markers() if each.kind == "restore")
    assert marker.body["restored"] is True
    assert (marker.position["epoch"], marker.position["rows"]) == (1, len(IDS))


@pytest.mark.parametrize("after", [False, True], ids=["before it is sent", "before its reply"])
@pytest.mark.timeout(170)
async def test_an_owner_that_dies_at_any_step_leaves_the_same_to_its_successor(rig: Rig, after: bool) -> None:
    records = rig.write(story())
    fatal: list[bytes] = []
    for at in itertools.count():
        await rig.ask(b"FLUSHALL")
        rig.log.partitions[UPDATES] = [[], []]
        process = rig.process(at, after=after)
        survived = await rig.live(process, records)
        fatal.append(process.last)
        if survived is None:
            successor = await rig.live(rig.process(), records)
            assert successor is not None
            await check(rig, records)
            assert await rig.copies() == []
            await successor.close()
            continue
        await survived.close()
        break
    for step in (b"staged", b"EXPIRE", b"ready", b"RENAME"):  # begun, a page of rows, complete, swapped in
        assert any(step in each for each in fatal), f"nobody died at {step!r}"


@pytest.mark.parametrize("when", ["before", "after"])
async def test_a_broken_connection_at_the_swap_is_settled(rig: Rig, when: str) -> None:
    records, process, cuts = rig.write(story()), rig.process(), [when] * 2

    def fault(packed: Sequence[Bytes]) -> str | None:
        return cuts.pop() if cuts and b"RENAME" in b"".join(packed) else None

    process.fault = fault
    await rig.live(process, records)
    await check(rig, records)
    assert not cuts or when == "after"  # the first one took effect


async def test_a_copy_that_was_lost_before_the_swap_is_made_again(rig: Rig) -> None:
    records, process = rig.write(story()), rig.process()
    lost: list[bool] = []

    def fault(packed: Sequence[Bytes]) -> str | None:
        if b"RENAME" in b"".join(packed) and not lost:
            lost.append(True)
            return "before"
        return None

    process.fault = fault
    runner = rig.runner(process)
    await runner.start()
    working = asyncio.ensure_future(runner.apply(records))
    while not lost:
        await asyncio.sleep(0.001)
    for key in await rig.copies():
        await rig.ask(b"DEL", key)
    await working
    await runner.drain()
    await check(rig, records)
    assert rig.versions.opened == 2


async def test_a_restore_of_another_epoch_is_counted_and_marked(rig: Rig) -> None:
    records = rig.write([gradient(IDS, 1), restore(2, epoch=4), restore(3, absent=True)])
    runner = await rig.live(rig.process(), records)
    assert runner is not None
    assert runner.progress.stats.skipped_restores == 2
    assert [each.body["restored"] for each in rig.markers() if each.kind == "restore"] == [False, False]
    await check(rig, records)


async def test_training_goes_on_while_a_version_is_loaded_or_cannot_be(rig: Rig) -> None:
    rig.versions.errors = [ObjectMissingError("tables/items/seg/0/x")] * 3
    rig.versions.gate.clear()
    records = rig.write([*story()[:3]])
    runner = await rig.live(rig.process(), records)
    assert runner is not None
    assert await rig.field(b"next") == b"%d" % len(records)
    rig.versions.gate.set()
    while await rig.field(b"failed") is None:
        await asyncio.sleep(0.001)
    while await rig.field(b"ready") != b"2":  # it is tried again, and somebody has mended it
        await asyncio.sleep(0.001)
    assert runner.unprepared is None
    assert await rig.field(b"failed") is None


async def test_a_preparation_that_is_given_up_leaves_no_copy(rig: Rig) -> None:
    records = rig.write([gradient(IDS, 1), op("prepare", 2, {"version": VERSION})])
    runner = await rig.live(rig.process(), records)
    assert runner is not None
    while await rig.field(b"ready") != b"2":
        await asyncio.sleep(0.001)
    assert await rig.copies()
    more = log_of([*story()[:2], op("prepare", 3, {"version": ""})], table=rig.spec)[3:]
    await runner.apply(more)
    assert await rig.copies() == []


async def test_a_zombie_s_copy_is_never_swapped_in(rig: Rig) -> None:
    records = rig.write(story())
    zombie = rig.runner(rig.process())
    rig.versions.gate.clear()
    await zombie.start()
    working = asyncio.ensure_future(zombie.apply(records))
    while rig.versions.opened == 0:
        await asyncio.sleep(0.001)
    successor = rig.runner(rig.process())
    start = await successor.start()
    rig.versions.gate.set()
    await successor.apply([record for record in records if record.offset >= start])
    await successor.drain()
    with pytest.raises(FenceLostError):
        await working
    await check(rig, records)


def test_pending_restores_are_told_by_the_epoch() -> None:
    shard = Shard("items", 0, KEYRING)
    feed(shard, log_of([gradient(IDS, 1)]))
    record = Record(2, 0, None, b"", ())
    for body, due in (({"from_epoch": 0}, True), ({"from_epoch": 1}, False), ({"absent": True}, False)):
        pending = PendingOp(op("restore", 2, {"version": VERSION, **body}), record)
        assert shard.restores(pending) is due
