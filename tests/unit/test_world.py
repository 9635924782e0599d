"""The simulated world: virtual time, processes that die, and storms, all from a seed."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from driftline.log.base import Outgoing
from tests.simulation.world import (
    Action,
    DeadlockError,
    FakeConnection,
    FakeLog,
    FakeRedis,
    ProcessKilledError,
    RunawayError,
    World,
    pack,
    run,
)

SEEDS = range(60)
SET = pack(b"HSET", b"h", b"f", b"1")
INCREASED = b"".join(pack(b"HSET", b"h", b"%d" % n, b"") for n in range(5))


def over_seeds(main: Callable[[World], Coroutine[Any, Any, Any]], **options: Any) -> list[Any]:
    return [run(seed, main, **options) for seed in SEEDS]


# Time


def test_sleeping_takes_virtual_time_only() -> None:
    async def main(world: World) -> float:
        await asyncio.gather(asyncio.sleep(1800), asyncio.sleep(900))
        return world.now()

    assert run(1, main) - run(1, lambda world: asyncio.sleep(0, world.now())) == pytest.approx(1800)


def test_waiting_for_what_cannot_happen_is_a_deadlock() -> None:
    async def main(world: World) -> None:
        await asyncio.get_running_loop().create_future()

    with pytest.raises(DeadlockError) as caught:
        run(7, main)
    assert "seed 7" in caught.value.__notes__[0]


def test_a_livelock_ends_at_the_horizon() -> None:
    async def main(world: World) -> None:
        while True:  # turning for ever is the point
            await asyncio.sleep(0.1)

    with pytest.raises(RunawayError):
        run(1, main, horizon=5.0)


def test_work_for_other_threads_is_done_in_place() -> None:
    async def main(world: World) -> list[int]:
        order = [1]
        await asyncio.to_thread(order.append, 2)
        return order

    assert run(1, main) == [1, 2]


def test_timeouts_and_task_groups_work() -> None:
    async def main(world: World) -> str:
        try:
            async with asyncio.timeout(1.0), asyncio.TaskGroup() as group:
                group.create_task(asyncio.sleep(10))
        except TimeoutError:
            return "timed out"
        return "done"

    assert run(1, main) == "timed out"


BUSY = """
import asyncio
from driftline.errors import DriftlineError
from driftline.log.base import Outgoing
from tests.simulation.world import *
async def main(world):
    redis, log = FakeRedis(world), FakeLog(world)
    log.create("t", 1)
    async def work(process):
        link, handle = redis.connect(process), log.handle(process)
        for n in range(30):
            try:
                await link.exchange(pack(b"HSET", b"h", b"%d" % n, process.name.encode()), 1)
                await handle.append("t", 0, [Outgoing(b"%d" % n)])
            except DriftlineError:
                if link.broken:
                    await asyncio.gather(link.reconnect(), return_exceptions=True)
    processes = [world.process("p") for _ in range(4)]
    tasks = {process.spawn(work(process)) for process in processes}
    storm = world.storm([Action("kill", processes[0].kill), Action("restart", lambda: redis.restart(lose=2))],
        count=3, mean_gap=0.02)
    await storm.run()
    await asyncio.wait(tasks)
    world.trace("end", repr([r.value for r in log.partition("t", 0).records]))
    return world.trace.text()
print(run(3, main, rates=ROUGH))
"""


def test_a_seed_gives_the_same_trace_in_any_process() -> None:
    command = [sys.executable, "-c", BUSY]
    traces = {subprocess.run(command, capture_output=True, check=True, text=True).stdout for _ in range(3)}
    assert len(traces) == 1
    (trace,) = traces
    assert "killed" in trace
    assert "restarted" in trace


# Processes


def test_a_killed_process_has_no_more_effect_whatever_it_tries() -> None:
    async def main(world: World) -> object:
        redis, log = FakeRedis(world), FakeLog(world)
        log.create("t", 1)
        process = world.process("p")
        link, handle = redis.connect(process), log.handle(process)
        raised: list[type[BaseException]] = []

        async def stubborn() -> None:
            try:
                await asyncio.sleep(1000)
            except asyncio.CancelledError:
                for attempt in (link.exchange(SET, 1), handle.append("t", 0, [Outgoing(b"x")])):
                    try:
                        await attempt
                    except BaseException as error:  # noqa: BLE001  # a cancellation is what is expected
                        raised.append(type(error))

        process.spawn(stubborn())
        await asyncio.sleep(1)
        process.kill()
        await asyncio.sleep(1)
        assert raised == [ProcessKilledError, ProcessKilledError]
        return redis.ask(b"EXISTS", b"h"), log.partition("t", 0).end

    assert run(1, main) == (0, 0)


def test_tasks_started_by_a_process_die_with_it() -> None:
    async def main(world: World) -> bool:
        children: list[asyncio.Task[None]] = []

        async def parent() -> None:
            children.append(asyncio.create_task(asyncio.sleep(1000)))
            await children[0]

        process = world.process("p")
        process.spawn(parent())
        await asyncio.sleep(1)
        process.kill()
        await asyncio.sleep(1)
        return children[0].cancelled()

    assert run(1, main)


def test_what_a_killed_process_had_under_way_arrives_or_not_by_the_seed() -> None:
    async def main(world: World) -> tuple[object, int]:
        redis, log = FakeRedis(world), FakeLog(world)
        log.create("t", 1)
        process = world.process("p")
        process.spawn(redis.connect(process).exchange(SET, 1))
        process.spawn(log.handle(process).append("t", 0, [Outgoing(b"x")]))
        await asyncio.sleep(0)
        process.kill()
        await asyncio.sleep(10)
        return redis.ask(b"EXISTS", b"h"), log.partition("t", 0).end

    assert set(over_seeds(main)) == {(0, 0), (0, 1), (1, 0), (1, 1)}


def test_a_frozen_process_hears_of_its_success_only_when_thawed() -> None:
    async def main(world: World) -> list[object]:
        redis = FakeRedis(world)
        process = world.process("p")
        link = redis.connect(process)
        task = process.spawn(link.exchange(SET, 1))
        await asyncio.sleep(0)
        process.freeze()
        later = process.spawn(log_nothing(redis.connect(process)))
        await asyncio.sleep(100)
        seen = [redis.ask(b"HLEN", b"h"), task.done(), later.done(), redis.ask(b"EXISTS", b"z")]
        process.thaw()
        await later
        return [*seen, await task, redis.ask(b"EXISTS", b"z")]

    async def log_nothing(link: FakeConnection) -> None:
        await link.exchange(pack(b"HSET", b"z", b"f", b""), 1)

    assert run(1, main) == [1, False, False, 0, [1], 1]


# The storm


def test_a_storm_does_what_it_was_given_and_says_so() -> None:
    async def main(world: World) -> tuple[list[str], str]:
        storm = world.storm([Action("a", lambda: None), Action("b", lambda: None)], count=20, mean_gap=1.0)
        await storm.run()
        return storm.done, world.trace.text()

    done, text = run(5, main)
    assert (len(done), set(done)) == (20, {"a", "b"})
    assert text.count("storm") == 20
    assert run(5, main) == (done, text)
