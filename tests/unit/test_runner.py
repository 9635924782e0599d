"""The runner of a shard: commits before states, dead letters before commits, ops as full stops."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable

import numpy as np
import pytest
from numpy.typing import NDArray

from driftline import topics
from driftline.errors import FenceLostError, PositionError, StateError
from driftline.frames.events import Event
from driftline.frames.markers import Markers
from driftline.frames.states import TOMBSTONE, Marker, States, read_update
from driftline.ids import producer_id
from driftline.log.base import Record
from driftline.rows.connection import RedisConnection
from driftline.rows.fields import read_fields
from driftline.rows.layout import RowLayout, ShardKeys
from driftline.rows.shard_store import ShardStore
from driftline.servers import RedisServer
from driftline.shard.cache import RowBlock
from driftline.shard.machine import Shard
from driftline_services.aggregator.limits import Limits
from driftline_services.aggregator.runner import ShardRunner
from tests.support.memory_log import MemoryLog
from tests.support.samples import (
    KEYRING,
    MINE,
    TABLE,
    delete,
    feed,
    gradient,
    log_of,
    op,
    restore_rows,
    rows_of,
)

A, B, C = MINE[:3]
GRADIENTS, UPDATES, DEAD = topics.gradients("items"), topics.updates("items"), topics.dead_letters("items")


class Rig:
    """A log in memory, a Redis of its own, and runners one after the other."""

    def __init__(self, url: str) -> None:
        self.url, self.keys = url, ShardKeys.of("items", 0)
        self.log = MemoryLog()
        self.log.partitions = {topic: [[], []] for topic in (GRADIENTS, UPDATES, DEAD)}
        self.runners: list[ShardRunner] = []

    async def connect(self) -> RedisConnection:
        return await RedisConnection.open(self.url)

    def runner(self, limits: Limits | None = None) -> ShardRunner:
        owner = b"owner-%d" % len(self.runners)
        store = ShardStore(self.connect, self.keys, owner)
        self.runners.append(
            ShardRunner("items", 0, store=store, log=self.log, keyring=KEYRING, limits=limits)
        )
        return self.runners[-1]

    def write(self, events: list[Event | bytes]) -> list[Record]:
        """Put the table's spec and `events` into the log and return the records."""
        records = log_of(events)
        self.log.partitions[GRADIENTS][0] = list(records)
        return records

    async def field(self, name: bytes) -> bytes | None:
        return (await read_fields(self.connect, self.keys, name))[0]

    def updates(self) -> list[States | Marker]:
        return [read_update(value, limit=1 << 20) for value in self.log.values(UPDATES)]

    def newest(self) -> dict[int, tuple[int, bytes]]:
        """Return what a reader of the updates that keeps the newest LSN per id ends with."""
        rows: dict[int, tuple[int, bytes, bool]] = {}
        for update in self.updates():
            if isinstance(update, States):
                for at, row in enumerate(update.ids.tolist()):
                    if int(update.lsn[at]) >= rows.get(row, (0,))[0]:
                        gone = bool(update.flags[at] & TOMBSTONE)
                        rows[row] = (int(update.lsn[at]), update.rows[at].tobytes(), gone)
        return {row: (at, value) for row, (at, value, gone) in rows.items() if not gone}


@pytest.fixture
async def rig(redis_factory: Callable[[], RedisServer]) -> AsyncIterator[Rig]:
    made = Rig(redis_factory().url)
    yield made
    for runner in made.runners:
        await runner.close()


async def test_what_was_drained_is_committed_and_published(rig: Rig) -> None:
    records = rig.write([gradient([A, B], 1), b"garbage", delete([A], 2)])
    runner = rig.runner()
    assert await runner.start() == 0
    await runner.apply(records)
    await runner.drain()
    assert await rig.field(b"next") == b"4"
    assert (runner.progress.applied, runner.progress.committed, runner.published) == (4, 4, 4)
    assert set(rig.newest()) == {B}
    letters = rig.log.partitions[DEAD][0]
    assert [letter.key for letter in letters] == [b"0:2"]
    stats = runner.progress.stats
    assert (stats.records, stats.rows, stats.ops) == (4, 3, 1)  # the spec is a record too


async def test_an_op_is_marked_between_what_was_before_and_what_comes_after(rig: Rig) -> None:
    records = rig.write([gradient([A], 1), op("barrier", 2, {"kind": "version"}), gradient([A], 2)])
    runner = rig.runner()
    await runner.start()
    await runner.apply(records)
    await runner.drain()
    kinds = [update.kind if isinstance(update, Marker) else "state" for update in rig.updates()]
    assert kinds == ["spec", "state", "barrier", "state"]
    marker = rig.updates()[2]
    assert isinstance(marker, Marker)
    sent = {"since": -1, "producers": {(b"p" * 16).hex(): [1, 2.0, 1.41421]}}
    assert (marker.op, marker.position["next"]) == (2, 3)
    assert marker.body == {"kind": "version", "gradients": sent}


async def test_a_marker_that_is_too_large_for_a_frame_is_written_in_parts(rig: Rig) -> None:
    senders = [producer_id(f"trainer-{n}") for n in range(20)]
    pushes: list[Event | bytes] = [gradient([A], 1, producer=sender) for sender in senders]
    records = rig.write([*pushes, op("barrier", 2, {"kind": "version"}), gradient([B], 1)])
    runner = rig.runner(Limits(marker_bytes=200))
    await runner.start()
    await runner.apply(records)
    await runner.drain()
    seen = [update.op if isinstance(update, Marker) else "state" for update in rig.updates()]
    assert seen == [1, "state", *[2] * (len(seen) - 3), "state"]
    assert len(seen) > 6
    reader = Markers()
    parts = [update for update in rig.updates() if isinstance(update, Marker)]
    *_, whole = [reader.take(part) for part in parts]
    assert whole is not None
    assert list(map(bytes, whole.tensors["pname"])) == sorted(senders)


async def test_the_next_owner_goes_on_where_the_last_one_committed(rig: Rig) -> None:
    records = rig.write([gradient([A, B], 1), gradient([B], 2), restore_rows([C], 2)])
    first = rig.runner()
    await first.start()
    await first.apply(records[:2])
    await first.drain()
    await first.close()
    second = rig.runner()
    start = await second.start()
    assert start <= 2
    await second.apply(records[start:])
    await second.drain()
    assert await rig.field(b"next") == b"4"
    assert set(rig.newest()) == {A, B, C}
    assert second.shard.position.rows == 3


async def test_states_that_were_committed_but_not_acknowledged_are_published_again(rig: Rig) -> None:
    records = rig.write([gradient([A, B], 1), delete([B], 2)])
    first = rig.runner()
    await first.start()
    await first.apply(records)
    await first.drain()
    await first.close()
    connection = await rig.connect()
    await connection.exchange(
        [b"*4\r\n$4\r\nHSET\r\n$14\r\ndl:{items:0}:w\r\n$9\r\npublished\r\n$1\r\n1\r\n"], 1
    )
    await connection.close()
    before = rig.newest()
    rig.log.partitions[UPDATES][0].clear()
    second = rig.runner()
    assert await second.start() == 1
    await second.apply(records[1:])
    await second.drain()
    assert rig.newest() == before
    (again,) = [update for update in rig.updates() if isinstance(update, States)]
    tombstones = again.ids[(again.flags & TOMBSTONE) != 0].tolist()
    assert (sorted(again.ids.tolist()), tombstones) == ([A, B], [B])


async def test_an_owner_that_was_replaced_commits_nothing_more(rig: Rig) -> None:
    records = rig.write([gradient([A], 1), gradient([B], 2)])
    old, new = rig.runner(), rig.runner()
    await old.start()
    await old.apply(records[:2])
    await old.drain()
    await new.start()
    with pytest.raises(FenceLostError):
        await _apply_and_drain(old, records[2:])
    assert isinstance(await asyncio.wait_for(old.failure(), 5), FenceLostError)
    assert await rig.field(b"next") == b"2"


async def test_a_log_that_does_not_continue_the_position_stops_the_shard(rig: Rig) -> None:
    records = rig.write([gradient([A], 1), gradient([B], 2)])
    runner = rig.runner()
    await runner.start()
    await runner.apply(records)
    await runner.drain()
    await runner.close()
    part = rig.log.partitions[GRADIENTS][0]
    part.pop()
    with pytest.raises(PositionError, match="ends at 2"):
        await rig.runner().start()
    part.append(log_of([gradient([A], 1), gradient([C], 9)])[2])
    with pytest.raises(PositionError, match="another log"):
        await rig.runner().start()
    rig.log.begins[GRADIENTS, 0] = 4
    part.extend(records)
    with pytest.raises(PositionError, match="removed unapplied"):
        await rig.runner().start()


async def test_a_record_that_cannot_be_judged_leaves_what_came_before_whole(rig: Rig) -> None:
    newer = op("spec", 2, {**TABLE.to_json(), "machine_version": 99})
    records = rig.write([gradient([A], 1), newer])
    runner = rig.runner()
    await runner.start()
    with pytest.raises(StateError, match="upgrade"):
        await runner.apply(records)
    await runner.drain()
    assert await rig.field(b"next") == b"2"


async def test_rows_beyond_the_cache_budget_are_fetched_again(rig: Rig) -> None:
    small = Limits(cache_bytes=1, flush_bytes=1)
    records = rig.write([gradient(MINE[at : at + 5], at + 1) for at in range(60)])
    runner = rig.runner(small)
    await runner.start()
    for at in range(0, len(records), 7):
        await runner.apply(records[at : at + 7])
    await runner.drain()
    whole = {row: value[2] for row, value in _rows(records).items()}
    assert {row: at for row, (at, _) in rig.newest().items()} == whole


async def _apply_and_drain(runner: ShardRunner, records: list[Record]) -> None:
    await runner.apply(records)
    await runner.drain()


def _rows(records: list[Record]) -> dict[int, tuple[bytes, bytes, int, int]]:
    shard = Shard("items", 0, KEYRING)
    feed(shard, records)
    return rows_of(shard)


def test_the_cache_of_a_worker_is_shared_by_its_shards_and_nothing_else_is() -> None:
    shared = Limits(cache_bytes=100, flush_bytes=10, publish_window=3).shared_by(4)
    assert (shared.cache_bytes, shared.flush_bytes, shared.publish_window) == (25, 10, 3)


class Measuring(ShardStore):
    """Notes how many rows each fetch asked for."""

    asked: list[int]

    async def fetch(self, layout: RowLayout, ids: NDArray[np.uint64]) -> RowBlock:
        self.asked.append(len(ids))
        return await super().fetch(layout, ids)


def measured(rig: Rig, limits: Limits) -> tuple[ShardRunner, list[int]]:
    store = Measuring(rig.connect, rig.keys, b"owner-m%d" % len(rig.runners))
    store.asked = []
    rig.runners.append(ShardRunner("items", 0, store=store, log=rig.log, keyring=KEYRING, limits=limits))
    return rig.runners[-1], store.asked


async def test_a_small_frame_that_names_many_rows_fetches_and_publishes_them_in_parts(rig: Rig) -> None:
    records = rig.write([gradient(MINE, 1), delete(MINE, 2)])
    first = rig.runner()
    await first.start()
    await first.apply(records[:2])
    await first.drain()
    await first.close()
    second, asked = measured(rig, Limits(flush_bytes=20 * first.shard.cache.row_bytes))
    start = await second.start()
    await second.apply(records[start:])
    await second.drain()
    assert sum(asked) == len(MINE)
    assert max(asked) <= 20
    assert rig.newest() == {}
    assert await rig.field(b"rows") == b"0"


async def test_a_batch_of_such_frames_is_applied_a_few_at_a_time(rig: Rig) -> None:
    records = rig.write(
        [gradient(MINE, 1), *(delete(MINE[at : at + 10], 2 + at) for at in range(0, len(MINE), 10))]
    )
    first = rig.runner()
    await first.start()
    await first.apply(records[:2])
    await first.drain()
    await first.close()
    second, asked = measured(rig, Limits(flush_bytes=20 * first.shard.cache.row_bytes))
    await second.start()
    await second.apply(records[2:])
    await second.drain()
    assert second.progress.stats.commits > 2
    assert max(asked) <= 20
    assert await rig.field(b"rows") == b"0"


async def test_commits_wait_while_too_many_bytes_of_states_are_not_acknowledged(rig: Rig) -> None:
    records = rig.write([gradient(MINE[at : at + 10], 1 + at) for at in range(0, 60, 10)])
    runner = rig.runner(Limits(publish_window=1))
    await runner.start()
    await runner.apply(records[:1])
    rig.log.gate.clear()
    for record in records[1:]:
        await runner.apply([record])
    until_committed = asyncio.create_task(_committed(runner, 2))
    await until_committed
    for _ in range(50):
        await asyncio.sleep(0)
    held, committed = runner._updates.held, runner.progress.committed
    rig.log.gate.set()
    await runner.drain()
    assert committed < len(records)  # however little log it was
    assert held > 0
    assert runner.published == len(records)


async def _committed(runner: ShardRunner, offset: int) -> None:
    async with asyncio.timeout(10.0):
        while runner.progress.committed < offset:
            await asyncio.sleep(0.001)
