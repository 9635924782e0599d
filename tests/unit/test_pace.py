"""When a commit starts: at once, or later while the log is known to hold more or commits are slow."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine

import pytest

from driftline_services.aggregator.limits import Limits
from driftline_services.aggregator.pace import Pace
from tests.simulation.world.loop import VirtualLoop, run_until_done

PATIENT = Limits(gather_bytes=100, gather_for=60.0, rest_for=10.0)


async def started(gathering: asyncio.Task[None]) -> None:
    """Let the task run until it waits."""
    for _ in range(5):
        await asyncio.sleep(0)


async def commit(pace: Pace, dirty_bytes: Callable[[], int], seconds: float = 0.0) -> None:
    """Make a commit that takes so long."""
    async with pace.commit(dirty_bytes):
        await asyncio.sleep(seconds)


async def test_a_commit_starts_at_once_when_the_log_holds_nothing_more() -> None:
    pace = Pace(PATIENT)
    pace.applied(behind=False)
    await asyncio.wait_for(commit(pace, lambda: 1), 10)


async def test_while_the_log_holds_more_a_commit_waits_for_its_bytes() -> None:
    pace, dirty = Pace(PATIENT), [1]
    pace.applied(behind=True)
    gathering = asyncio.create_task(commit(pace, lambda: dirty[0]))
    await started(gathering)
    assert not gathering.done()
    dirty[0] = 100
    pace.applied(behind=True)
    await asyncio.wait_for(gathering, 10)


async def test_the_end_of_the_log_starts_a_commit_that_waited() -> None:
    pace = Pace(PATIENT)
    pace.applied(behind=True)
    gathering = asyncio.create_task(commit(pace, lambda: 1))
    await started(gathering)
    pace.applied(behind=False)
    await asyncio.wait_for(gathering, 10)


async def test_whoever_is_in_a_hurry_starts_a_commit_that_waited() -> None:
    pace = Pace(PATIENT)
    pace.applied(behind=True)
    gathering = asyncio.create_task(commit(pace, lambda: 1))
    await started(gathering)
    with pace.hurried():
        await asyncio.wait_for(gathering, 10)


async def test_a_commit_waits_only_so_long_for_a_log_that_does_not_go_on() -> None:
    pace = Pace(Limits(gather_bytes=100, gather_for=0.01))
    pace.applied(behind=True)
    await asyncio.wait_for(commit(pace, lambda: 1), 10)


async def test_without_news_there_is_no_work() -> None:
    assert not await Pace(PATIENT).work(0.01)


def waited(scenario: Callable[[Pace], Coroutine[object, object, None]], took: float) -> float:
    """Return how long `scenario` takes behind a commit that took `took` virtual seconds."""

    async def main() -> float:
        pace = Pace(PATIENT)
        await commit(pace, lambda: 1, took)
        pace.applied(behind=False)
        begun = asyncio.get_running_loop().time()
        await scenario(pace)
        return asyncio.get_running_loop().time() - begun

    return run_until_done(VirtualLoop(), main())


@pytest.mark.parametrize(("took", "rest"), [(0.0, 0.0), (2.0, 2.0), (30.0, 10.0)])
def test_behind_a_slow_commit_the_next_waits_as_long_as_that_took_up_to_a_limit(
    took: float, rest: float
) -> None:
    assert waited(lambda pace: commit(pace, lambda: 1), took) == pytest.approx(rest)


def test_a_commit_that_holds_enough_does_not_rest() -> None:
    assert waited(lambda pace: commit(pace, lambda: 100), 2.0) == 0.0


def test_whoever_is_in_a_hurry_ends_the_rest() -> None:
    async def hurry(pace: Pace) -> None:
        resting = asyncio.create_task(commit(pace, lambda: 1))
        await asyncio.sleep(0.5)
        with pace.hurried():
            await resting

    assert waited(hurry, 2.0) == pytest.approx(0.5)
