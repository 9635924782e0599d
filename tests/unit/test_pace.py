"""When a commit starts: at once, or later while the log is known to hold more."""

from __future__ import annotations

import asyncio

from driftline_services.aggregator.limits import Limits
from driftline_services.aggregator.pace import Pace

PATIENT = Limits(gather_bytes=100, gather_for=60.0)


async def started(gathering: asyncio.Task[None]) -> None:
    """Let the task run until it waits."""
    for _ in range(5):
        await asyncio.sleep(0)


async def test_a_commit_starts_at_once_when_the_log_holds_nothing_more() -> None:
    pace = Pace(PATIENT)
    pace.applied(behind=False)
    await asyncio.wait_for(pace.gather(lambda: 1), 10)


async def test_while_the_log_holds_more_a_commit_waits_for_its_bytes() -> None:
    pace, dirty = Pace(PATIENT), [1]
    pace.applied(behind=True)
    gathering = asyncio.create_task(pace.gather(lambda: dirty[0]))
    await started(gathering)
    assert not gathering.done()
    dirty[0] = 100
    pace.applied(behind=True)
    await asyncio.wait_for(gathering, 10)


async def test_the_end_of_the_log_starts_a_commit_that_waited() -> None:
    pace = Pace(PATIENT)
    pace.applied(behind=True)
    gathering = asyncio.create_task(pace.gather(lambda: 1))
    await started(gathering)
    pace.applied(behind=False)
    await asyncio.wait_for(gathering, 10)


async def test_whoever_is_in_a_hurry_starts_a_commit_that_waited() -> None:
    pace = Pace(PATIENT)
    pace.applied(behind=True)
    gathering = asyncio.create_task(pace.gather(lambda: 1))
    await started(gathering)
    with pace.hurried():
        await asyncio.wait_for(gathering, 10)


async def test_a_commit_waits_only_so_long_for_a_log_that_does_not_go_on() -> None:
    pace = Pace(Limits(gather_bytes=100, gather_for=0.01))
    pace.applied(behind=True)
    await asyncio.wait_for(pace.gather(lambda: 1), 10)


async def test_without_news_there_is_no_work() -> None:
    assert not await Pace(PATIENT).work(0.01)
