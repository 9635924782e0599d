"""Sessions: load first, release last, and the first error wins."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

import pytest

from driftline.errors import ConfigError, PositionError, StateError, TimedOutError
from driftline.log.base import Record
from driftline_services.chassis.core import Chassis
from driftline_services.chassis.handler import Batch, Flow, TopicPartition
from driftline_services.chassis.lanes import Delivery
from driftline_services.chassis.settings import ChassisSettings

A, B = TopicPartition("t", 0), TopicPartition("t", 1)


class Spy:
    """A handler that notes what it is asked, and waits or fails where told."""

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.wait_in: dict[str, asyncio.Event] = {}
        self.fail_in: dict[str, Exception] = {}
        self.positions: Mapping[TopicPartition, int] = {A: 0, B: 0}
        self.flow: Flow

    def bind(self, flow: Flow) -> None:
        self.flow = flow

    async def _step(self, name: str) -> None:
        self.calls.append(name)
        if name in self.wait_in:
            await self.wait_in[name].wait()
        if name in self.fail_in:
            raise self.fail_in[name]

    async def load(self, partitions: frozenset[TopicPartition]) -> Mapping[TopicPartition, int]:
        await self._step("load")
        return {tp: p for tp, p in self.positions.items() if tp in partitions}

    async def apply(self, batch: Batch) -> None:
        await self._step("apply")

    async def lost(self, tp: TopicPartition, error: PositionError) -> None:
        raise error

    async def release(self, partitions: frozenset[TopicPartition]) -> None:
        await self._step("release")
        for tp in partitions:
            self.flow.hint(tp, 9)


class Bench:
    def __init__(self, **settings: float) -> None:
        self.spy = Spy()
        self.chassis = Chassis(self.spy, ["t"], ChassisSettings(**settings))  # type: ignore[arg-type]
        self.turns: dict[TopicPartition, int] = {}
        self.errors: list[BaseException] = []
        self.chassis.on_error(self.errors.append)

    async def move(self, tp: TopicPartition, position: int, turn: int) -> None:
        self.turns[tp] = turn

    def begin(self, *partitions: TopicPartition) -> None:
        self.chassis.begin(partitions, self.move)

    async def deliver(self, tp: TopicPartition, offset: int) -> None:
        batch = Batch(*tp, offset, offset + 1, [Record(offset, 0, None, b"x")])
        await self.chassis.deliver(Delivery(batch, self.turns[tp], 1))


@pytest.fixture
def bench() -> Bench:
    return Bench()


async def settle() -> None:
    for _ in range(20):
        await asyncio.sleep(0)


async def test_load_comes_first_and_release_last(bench: Bench) -> None:
    bench.begin(A, B)
    await settle()
    await bench.deliver(A, 0)
    await settle()
    await bench.chassis.end()
    assert bench.spy.calls == ["load", "apply", "release"]


async def test_release_comes_once_however_often_the_end_is_asked_for(bench: Bench) -> None:
    bench.begin(A)
    await settle()
    await asyncio.gather(bench.chassis.end(), bench.chassis.end())
    await bench.chassis.end()
    assert bench.spy.calls == ["load", "release"]


async def test_hints_given_in_release_are_kept_until_the_next_assignment(bench: Bench) -> None:
    bench.begin(A)
    await settle()
    await bench.chassis.end()
    assert bench.chassis.hints() == {A: 9}
    bench.begin(B)
    assert bench.chassis.hints() == {}


async def test_a_partition_without_a_position_is_not_wanted(bench: Bench) -> None:
    bench.spy.positions = {A: 0}
    bench.begin(A, B)
    await settle()
    assert bench.chassis.wanted() == {A}


async def test_the_end_waits_for_a_load_in_hand_and_releases_what_it_took(bench: Bench) -> None:
    bench.spy.wait_in["load"] = asyncio.Event()
    bench.begin(A)
    ending = asyncio.create_task(bench.chassis.end())
    await settle()
    assert not ending.done()
    bench.spy.wait_in["load"].set()
    await ending
    assert bench.spy.calls == ["load", "release"]
    assert bench.turns == {}


@pytest.mark.parametrize("step", ["load", "apply", "release"])
async def test_an_exception_is_reported_once_and_nothing_is_released_after(bench: Bench, step: str) -> None:
    bench.spy.fail_in[step] = error = RuntimeError(step)
    bench.begin(A)
    await settle()
    if step == "apply":
        await bench.deliver(A, 0)
        await settle()
    await bench.chassis.end()
    await bench.chassis.end()
    assert bench.errors == [error]
    assert bench.chassis.error is error
    assert bench.spy.calls.count("release") == (1 if step == "release" else 0)


async def test_an_apply_that_does_not_end_stops_the_worker_without_a_release() -> None:
    bench = Bench(drain_timeout=0.01)
    bench.spy.wait_in["apply"] = asyncio.Event()
    bench.begin(A)
    await settle()
    await bench.deliver(A, 0)
    await settle()
    await bench.chassis.end()
    assert isinstance(bench.errors[0], TimedOutError)
    assert bench.spy.calls == ["load", "apply"]


async def test_the_same_assignment_twice_is_one_session(bench: Bench) -> None:
    bench.begin(A)
    bench.begin(A)
    await settle()
    assert bench.spy.calls == ["load"]


async def test_another_assignment_without_a_revocation_is_refused(bench: Bench) -> None:
    bench.begin(A)
    bench.begin(A, B)
    assert isinstance(bench.errors[0], StateError)


async def test_nothing_begins_after_a_crash(bench: Bench) -> None:
    bench.spy.flow.crash(RuntimeError("enough"))
    bench.begin(A)
    await settle()
    assert bench.spy.calls == []


async def test_the_flow_ignores_partitions_that_are_not_owned(bench: Bench) -> None:
    bench.begin(A)
    await settle()
    flow = bench.spy.flow
    flow.hint(B, 5)
    await flow.seek(B, 5)
    await flow.hold(B)
    await flow.resume(B, 5)
    assert bench.chassis.hints() == {}
    assert B not in bench.turns


async def test_subscribing_again_to_a_topic_changes_nothing(bench: Bench) -> None:
    await bench.chassis.subscribe(["t"])
    assert not bench.chassis.topics_changed.is_set()
    await bench.chassis.subscribe(["u"])
    assert bench.chassis.topics_changed.is_set()
    assert bench.chassis.topics == {"t", "u"}


@pytest.mark.parametrize(
    "settings", [{"lane_batches": 0}, {"session_timeout": 30.0}, {"drain_timeout": 30.0}], ids=str
)
async def test_settings_that_cannot_work_are_refused(settings: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match=next(iter(settings))):
        ChassisSettings(**settings)  # type: ignore[arg-type]
