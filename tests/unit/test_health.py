"""When a worker is live, when it is ready, and what it says if not."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from aiohttp import ClientSession
from aiohttp.test_utils import TestClient, TestServer
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry

from driftline.errors import ConfigError
from driftline.metrics import OWNED_SHARDS, SampleCollector
from driftline.servers.local import free_ports
from driftline_services.chassis.http import (
    EVENT_LOOP,
    Code,
    Health,
    Mark,
    ShardHealth,
    application,
    mark,
    readiness,
    serving,
)

SHARD = ShardHealth("users", 3, taken_over=True, applied=5, end=5)
BEHIND = replace(SHARD, end=9)
HOST = "127.0.0.1"
DOCS = Path(__file__).parents[2] / "docs" / "reference"


class Worker:
    """A worker whose shards and clock the test sets."""

    def __init__(self, *shards: ShardHealth) -> None:
        self.time = 0.0
        self.shards: Sequence[ShardHealth] | None = shards
        self.health = Health(lambda: self.shards, max_age=30, stall_after=60, now=lambda: self.time)

    def codes(self) -> list[Code]:
        return [reason.code for reason in self.health.ready().reasons]


# Live


def test_a_task_that_gave_a_sign_in_time_is_live() -> None:
    worker = Worker()
    worker.health.beat("users/3")
    worker.time = 30.0
    assert worker.health.live().ok


def test_a_task_at_work_without_a_sign_is_stuck() -> None:
    worker = Worker()
    worker.health.beat("users/3")
    worker.health.beat("users/4")
    worker.time = 20.0
    worker.health.beat("users/4")
    worker.time = 31.0
    (reason,) = worker.health.live().reasons
    assert (reason.code, reason.subject) == (Code.STUCK, "users/3")
    assert "31.0 s" in reason.detail


def test_a_task_that_waits_for_work_may_be_silent() -> None:
    worker = Worker()
    worker.health.beat("users/3")
    worker.health.idle("users/3")
    worker.time = 1e6
    assert worker.health.live().ok


def test_a_task_that_ended_is_not_waited_for() -> None:
    worker = Worker()
    worker.health.beat("users/3")
    worker.health.forget("users/3")
    worker.time = 1e6
    assert worker.health.live().ok


# Ready


def test_a_worker_whose_shards_are_served_is_ready() -> None:
    assert Worker(SHARD).codes() == []


def test_a_worker_before_its_first_assignment_is_not_ready() -> None:
    worker = Worker()
    worker.shards = None
    assert worker.codes() == [Code.UNASSIGNED]


def test_a_worker_to_whom_no_shard_fell_is_ready() -> None:
    assert Worker().codes() == []


def test_a_shard_not_taken_over_is_not_ready() -> None:
    assert Worker(SHARD, replace(SHARD, shard=4, taken_over=False)).codes() == [Code.TAKING_OVER]


def test_a_failed_shard_is_not_ready_and_says_why() -> None:
    worker = Worker(replace(SHARD, failure="log behind the store"))
    (reason,) = worker.health.ready().reasons
    assert (reason.code, reason.subject, reason.detail) == (Code.FAILED, "users/3", "log behind the store")


def test_a_lag_that_stands_still_is_a_stall() -> None:
    worker = Worker(BEHIND)
    assert worker.codes() == []
    worker.time = 59.0
    assert worker.codes() == []
    worker.time = 60.0
    (reason,) = worker.health.ready().reasons
    assert reason.code is Code.STALLED
    assert reason.detail == "4 records behind, at offset 5 for 60.0 s"


def test_a_lag_that_moves_is_no_stall_even_if_it_grows() -> None:
    worker = Worker(BEHIND)
    for step in range(10):
        worker.time = 50.0 * step
        worker.shards = (replace(BEHIND, applied=5 + step, end=100 * step + 100),)
        assert worker.codes() == []


def test_a_shard_that_stood_still_without_lag_is_not_blamed_for_its_first_record() -> None:
    worker = Worker(SHARD)
    worker.health.observe()
    worker.time = 1000.0
    worker.shards = (BEHIND,)
    assert worker.codes() == []


def test_a_shard_that_comes_back_starts_anew() -> None:
    worker = Worker(BEHIND)
    worker.health.observe()
    worker.shards = ()
    worker.health.observe()
    worker.time = 1000.0
    worker.shards = (BEHIND,)
    assert worker.codes() == []


@given(
    looks=st.lists(
        st.tuples(st.floats(0, 100), st.integers(0, 2), st.integers(0, 2)), min_size=1, max_size=12
    )
)
def test_a_stall_is_exactly_an_unbroken_row_of_looks_at_the_same_offset_with_lag(
    looks: list[tuple[float, int, int]],
) -> None:
    marks: dict[str, Mark] = {}
    now, run_began = 0.0, None
    previous: int | None = None
    for passed, applied, lag in looks:
        now += passed
        shard = replace(SHARD, applied=applied, end=applied + lag)
        if lag == 0:
            run_began = None
        elif run_began is None or applied != previous:
            run_began = now
        previous = applied
        marks = mark(marks, [shard], now)
        stalled = run_began is not None and now - run_began >= 60
        assert readiness([shard], marks, now, 60).ok is not stalled


# Over HTTP


def ask(worker: Worker, question: Callable[[TestClient], Awaitable[None]]) -> None:  # type: ignore[type-arg]  # aiohttp's own parameters
    registry = CollectorRegistry()
    registry.register(SampleCollector(lambda: [OWNED_SHARDS.sample(2, "users")]))

    async def main() -> None:
        async with TestClient(TestServer(application(worker.health, registry))) as client:
            await question(client)

    asyncio.run(main())


def test_ready_and_live_are_200() -> None:
    async def question(client: TestClient) -> None:  # type: ignore[type-arg]
        for path, status in (("/livez", "live"), ("/readyz", "ready")):
            async with client.get(path) as response:
                assert response.status == 200
                assert await response.json() == {"status": status, "reasons": []}

    ask(Worker(SHARD), question)


def test_a_no_is_503_and_names_every_reason() -> None:
    async def question(client: TestClient) -> None:  # type: ignore[type-arg]
        async with client.get("/readyz") as response:
            assert response.status == 503
            body = await response.json()
        assert body["status"] == "not ready"
        assert [(each["code"], each["subject"]) for each in body["reasons"]] == [
            ("failed", "users/3"),
            ("taking_over", "users/4"),
        ]

    ask(Worker(replace(SHARD, failure="gap"), replace(SHARD, shard=4, taken_over=False)), question)


@pytest.mark.parametrize(
    ("accept", "content_type"),
    [
        ("text/plain", "text/plain"),
        ("application/openmetrics-text; version=1.0.0", "application/openmetrics-text"),
    ],
)
def test_metrics_come_in_the_format_asked_for(accept: str, content_type: str) -> None:
    async def question(client: TestClient) -> None:  # type: ignore[type-arg]
        async with client.get("/metrics", headers={"Accept": accept}) as response:
            assert response.status == 200
            assert response.headers["Content-Type"].startswith(content_type)
            assert 'driftline_owned_shards{table="users"} 2.0' in await response.text()

    ask(Worker(), question)


def test_nothing_else_is_served() -> None:
    async def question(client: TestClient) -> None:  # type: ignore[type-arg]
        async with client.get("/") as response:
            assert response.status == 404
        async with client.post("/metrics") as response:
            assert response.status == 405

    ask(Worker(), question)


def test_while_serving_the_event_loop_beats_and_the_port_answers() -> None:
    worker = Worker(SHARD)
    (port,) = free_ports(1)

    async def main() -> None:
        async with (
            serving(worker.health, CollectorRegistry(), host=HOST, port=port),
            ClientSession() as session,
        ):
            async with session.get(f"http://{HOST}:{port}/livez") as response:
                assert response.status == 200
            worker.time = 31.0  # the next beat is a second away
            async with session.get(f"http://{HOST}:{port}/livez") as response:
                assert [each["subject"] for each in (await response.json())["reasons"]] == [EVENT_LOOP]

    asyncio.run(main())


def test_port_zero_serves_nothing() -> None:
    worker = Worker()

    async def main() -> None:
        async with serving(worker.health, CollectorRegistry(), host="no such host", port=0):
            pass

    asyncio.run(main())


def test_a_port_in_use_is_a_setting_to_change() -> None:
    (port,) = free_ports(1)
    worker = Worker()

    async def main() -> None:
        first, second = (serving(worker.health, CollectorRegistry(), host=HOST, port=port) for _ in range(2))
        async with first, second:
            pass

    with pytest.raises(ConfigError, match=f"http_port {port}"):
        asyncio.run(main())


def test_an_error_in_looking_at_the_shards_is_not_swallowed() -> None:
    def broken() -> Sequence[ShardHealth]:
        raise ZeroDivisionError

    async def main() -> None:
        async with serving(Health(broken), CollectorRegistry(), host=HOST, port=free_ports(1)[0]):
            await asyncio.sleep(0)

    with pytest.raises(ZeroDivisionError):
        asyncio.run(main())


def test_the_page_explains_every_reason() -> None:
    page = (DOCS / "metrics.md").read_text("utf-8")
    assert all(f"`{code}`" in page for code in Code)
