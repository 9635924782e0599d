"""What a broken link to the simulated Redis or log leaves behind, fault by fault."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from typing import Any

import pytest

from driftline.errors import (
    LogUnavailableError,
    OffsetError,
    PartitionCountError,
    StoreUnavailableError,
    UnknownTopicError,
)
from driftline.log.base import Bounds, Log, Outgoing, Reader
from tests.simulation.world import (
    ROUGH,
    FakeConnection,
    FakeLog,
    FakeRedis,
    FaultRates,
    World,
    pack,
    run,
)

SEEDS = range(60)
SET = pack(b"HSET", b"h", b"f", b"1")
INCREASED = b"".join(pack(b"HSET", b"h", b"%d" % n, b"") for n in range(5))


def over_seeds(main: Callable[[World], Coroutine[Any, Any, Any]], **options: Any) -> list[Any]:
    return [run(seed, main, **options) for seed in SEEDS]


# Redis


def test_commands_without_faults_get_their_replies() -> None:
    async def main(world: World) -> Sequence[object]:
        link = FakeRedis(world).connect(world.process("p"))
        return await link.exchange([SET, pack(b"HGETALL", b"h")], 2)

    assert run(1, main) == [1, [b"f", b"1"]]


async def _fields_after_failure(world: World) -> int:
    redis = FakeRedis(world)
    link = redis.connect(world.process("p"))
    with pytest.raises(StoreUnavailableError):
        await link.exchange(INCREASED, 5)
    assert link.broken
    with pytest.raises(StoreUnavailableError):
        await link.exchange(SET, 1)
    at_once = redis.ask(b"HLEN", b"h")
    await asyncio.sleep(60.0)
    assert isinstance(at_once, int)
    finally_there = redis.ask(b"HLEN", b"h")
    assert isinstance(finally_there, int)
    return finally_there if at_once == finally_there else -finally_there


@pytest.mark.parametrize(
    ("rates", "outcomes"),
    [
        (FaultRates(redis_cut_before=1.0), {0}),
        (FaultRates(redis_cut_midway=1.0), {0, 1, 2, 3, 4, 5}),
        (FaultRates(redis_reply_lost=1.0), {5}),
        (FaultRates(redis_late=1.0), {-5}),
    ],
)
def test_a_broken_exchange_leaves_what_its_fault_says(rates: FaultRates, outcomes: set[int]) -> None:
    assert set(over_seeds(_fields_after_failure, rates=rates)) == outcomes


def test_a_watch_does_not_survive_a_reconnect() -> None:
    async def main(world: World) -> Sequence[object]:
        redis = FakeRedis(world)
        link = redis.connect(world.process("p"))
        await link.exchange(pack(b"WATCH", b"h"), 1)
        redis.restart()
        with pytest.raises(StoreUnavailableError):
            await link.exchange(SET, 1)
        await link.reconnect()
        redis.ask(b"HSET", b"h", b"f", b"0")
        transaction = [pack(b"MULTI"), SET, pack(b"EXEC")]
        return await link.exchange(transaction, 3)

    assert run(1, main) == [b"OK", b"QUEUED", [0]]


def test_other_connections_get_in_between_exec_and_the_next_watch() -> None:
    async def main(world: World) -> bool:
        redis = FakeRedis(world)
        one, other = (redis.connect(world.process(name)) for name in "ab")
        packed = b"".join(
            pack(*c)
            for c in (
                (b"MULTI",),
                (b"HSET", b"h", b"f", b"1"),
                (b"EXEC",),
                (b"WATCH", b"h"),
                (b"HGET", b"h", b"f"),
            )
        )
        task = asyncio.ensure_future(one.exchange(packed, 5))
        await other.exchange(pack(b"HSET", b"h", b"f", b"2"), 1)
        return (await task)[4] == b"2"

    assert set(over_seeds(main)) == {True, False}


def test_two_writers_that_watch_never_both_win() -> None:
    async def increase(link: FakeConnection, wins: list[int]) -> None:
        for _ in range(20):
            try:
                watch = [pack(b"WATCH", b"w"), pack(b"HGET", b"w", b"n")]
                _, found = await link.exchange(watch, 2)
                value = int(found) + 1 if isinstance(found, bytes) else 1
                write = [(b"MULTI",), (b"HSET", b"w", b"n", b"%d" % value), (b"EXEC",)]
                replies = await link.exchange([pack(*c) for c in write], 3)
                if replies[2] is not None:
                    wins.append(value)
            except StoreUnavailableError:
                await link.reconnect()

    async def main(world: World) -> int:
        redis, wins = FakeRedis(world), list[int]()
        links = [redis.connect(world.process("p")) for _ in range(3)]
        await asyncio.gather(*(increase(link, wins) for link in links))
        assert len(set(wins)) == len(wins)
        return len(wins)

    assert min(over_seeds(main, rates=ROUGH)) > 5


def test_a_restart_loses_the_last_transactions_and_refuses_while_down() -> None:
    async def main(world: World) -> Sequence[object]:
        redis = FakeRedis(world)
        for n in range(5):
            redis.ask(b"HSET", b"h", b"%d" % n, b"")
        redis.restart(lose=2, down=10.0)
        link = redis.connect(world.process("p"))
        with pytest.raises(StoreUnavailableError):
            await link.exchange(SET, 1)
        with pytest.raises(StoreUnavailableError):
            await link.reconnect()
        await asyncio.sleep(10.0)
        await link.reconnect()
        return await link.exchange(pack(b"HLEN", b"h"), 1)

    assert run(1, main) == [3]


def test_an_empty_restart_loses_everything() -> None:
    async def main(world: World) -> object:
        redis = FakeRedis(world)
        redis.ask(b"HSET", b"h", b"f", b"")
        redis.restart_empty()
        return redis.ask(b"EXISTS", b"h")

    assert run(1, main) == 0


# The log


def test_the_handle_fulfils_the_protocols() -> None:
    async def main(world: World) -> None:
        log = FakeLog(world)
        log.create("t", 1)
        handle: Log = log.handle(world.process("p"))
        reader: Reader = handle.reader("t", 0, 0)
        async with handle:
            await handle.create_topic("u", 2)
            assert await handle.topics() == {"t": 1, "u": 2}
            with pytest.raises(PartitionCountError):
                await handle.create_topic("u", 3)
            with pytest.raises(UnknownTopicError):
                await handle.append("t", 1, [Outgoing(b"")])
            assert await handle.append("t", 0, [Outgoing(b"a"), Outgoing(b"b")]) == 0
            assert await handle.append("t", 0, [Outgoing(b"c")]) == 2
            assert await handle.bounds("t", 0) == Bounds(0, 3)
            found: list[tuple[int, bytes]] = []
            while len(found) < 3:
                found += [(r.offset, r.value) for r in await reader.read(max_bytes=1)]
            assert found == [(0, b"a"), (1, b"b"), (2, b"c")]
            assert await reader.read(wait=1.0) == []
            reader.seek(4)
            with pytest.raises(OffsetError):
                await reader.read()
            log.trim("t", 0, 2)
            reader.seek(1)
            with pytest.raises(OffsetError):
                await reader.read()

    run(1, main)


def test_a_waiting_reader_wakes_when_something_is_appended() -> None:
    async def main(world: World) -> tuple[int, bool]:
        log = FakeLog(world)
        log.create("t", 1)
        process = world.process("p")
        reading = process.spawn(log.handle(process).reader("t", 0, 0).read(wait=100.0))
        await asyncio.sleep(1)
        log.put("t", 0, [Outgoing(b"x")])
        return len(await reading), world.loop.time() < 2

    assert run(1, main) == (1, True)


@pytest.mark.parametrize(
    ("rates", "outcomes"),
    [
        (FaultRates(log_append_lost=1.0), {(0, 0)}),
        (FaultRates(log_ack_lost=1.0), {(2, 2)}),
        (FaultRates(log_append_late=1.0), {(0, 2)}),
    ],
)
def test_a_failed_append_leaves_what_its_fault_says(
    rates: FaultRates, outcomes: set[tuple[int, int]]
) -> None:
    async def main(world: World) -> tuple[int, int]:
        log = FakeLog(world)
        log.create("t", 1)
        with pytest.raises(LogUnavailableError):
            await log.handle(world.process("p")).append("t", 0, [Outgoing(b"a"), Outgoing(b"b")])
        at_once = log.partition("t", 0).end
        await asyncio.sleep(60)
        return at_once, log.partition("t", 0).end

    assert set(over_seeds(main, rates=rates)) == outcomes


def test_the_logs_clock_jumps_ahead_and_never_back() -> None:
    async def main(world: World) -> list[int]:
        log = FakeLog(world)
        log.create("t", 1)
        log.put("t", 0, [Outgoing(b"")])
        log.skip_time(86_400_000)
        log.put("t", 0, [Outgoing(b"")])
        return [record.timestamp for record in log.partition("t", 0).records]

    first, second = run(1, main)
    assert second - first == 86_400_000
