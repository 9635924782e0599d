"""Lanes: one thing after the other per partition, turns, chaining, bounds."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from driftline.errors import PositionError
from driftline.log.base import Record
from driftline_services.chassis.handler import Batch, TopicPartition
from driftline_services.chassis.lanes import Budget, Delivery, Lane, LaneLimits, Loss

TP = TopicPartition("t", 0)


class Bench:
    """A lane with a transport and a handler under control of the test."""

    def __init__(self, *, batches: int = 2) -> None:
        self.moves: list[tuple[int, int]] = []
        self.applied: list[tuple[int, int]] = []
        self.errors: list[BaseException] = []
        self.losses: list[str] = []
        self.nowhere = False
        self.gate = asyncio.Event()
        self.gate.set()
        self.budget = Budget(1000)
        self.lane = Lane(
            TP,
            apply=self.apply,
            lost=self.lost,
            move=self.move,
            budget=self.budget,
            limits=LaneLimits(batches=batches, bytes=1000),
            fatal=self.errors.append,
        )

    async def move(self, tp: TopicPartition, position: int, turn: int) -> None:
        self.moves.append((position, turn))
        if self.nowhere:
            raise PositionError("not in the log")

    async def lost(self, tp: TopicPartition, error: PositionError) -> None:
        self.losses.append(str(error))

    async def apply(self, batch: Batch) -> None:
        await self.gate.wait()
        self.applied.append((batch.start, batch.next))

    @property
    def turn(self) -> int:
        return self.moves[-1][1]

    def put(self, start: int, end: int, turn: int | None = None, size: int = 10) -> None:
        records = [Record(offset, 0, None, b"") for offset in range(start, end)]
        self.lane.put(Delivery(Batch(*TP, start, end, records), turn or self.turn, size))


async def settle() -> None:
    """Let every task run until it waits for something."""
    for _ in range(20):
        await asyncio.sleep(0)


@pytest.fixture
async def bench() -> Bench:
    made = Bench()
    await made.lane.resume(0)
    return made


async def test_nothing_is_wanted_before_resume() -> None:
    bench = Bench()
    await settle()
    assert not bench.lane.wanting
    assert bench.moves == []


async def test_batches_are_applied_in_order(bench: Bench) -> None:
    bench.put(0, 5)
    bench.put(5, 7)
    await settle()
    assert bench.applied == [(0, 5), (5, 7)]


async def test_a_loss_is_reported_behind_what_was_fetched_before(bench: Bench) -> None:
    bench.gate.clear()
    bench.put(0, 5)
    bench.lane.lose(Loss(TP, bench.turn, PositionError("gone")))
    await settle()
    assert bench.losses == []
    bench.gate.set()
    await settle()
    assert (bench.applied, bench.losses, bench.errors) == ([(0, 5)], ["gone"], [])


async def test_a_lane_with_a_loss_is_held_until_resumed(bench: Bench) -> None:
    bench.lane.lose(Loss(TP, bench.turn, PositionError("gone")))
    await settle()
    wanting = [bench.lane.wanting]
    await bench.lane.resume(7)
    assert [*wanting, bench.lane.wanting] == [False, True]
    assert bench.losses == ["gone"]


async def test_a_loss_of_an_earlier_turn_is_refused(bench: Bench) -> None:
    earlier = bench.turn
    await bench.lane.seek(3)
    bench.lane.lose(Loss(TP, earlier, PositionError("gone")))
    await settle()
    assert bench.losses == []
    assert bench.lane.wanting


async def test_a_position_that_cannot_be_moved_to_is_a_loss(bench: Bench) -> None:
    bench.nowhere = True
    await bench.lane.seek(3)
    await settle()
    assert (bench.losses, bench.errors) == (["not in the log"], [])
    assert not bench.lane.wanting


async def test_a_gap_within_a_turn_is_fatal(bench: Bench) -> None:
    bench.put(1, 5)
    assert isinstance(bench.errors[0], PositionError)
    assert bench.applied == []


async def test_a_repetition_within_a_turn_is_fatal(bench: Bench) -> None:
    bench.put(0, 5)
    bench.put(0, 5)
    assert isinstance(bench.errors[0], PositionError)


async def test_a_delivery_of_an_earlier_turn_is_refused(bench: Bench) -> None:
    earlier = bench.turn
    await bench.lane.seek(100)
    bench.put(0, 5, turn=earlier)
    await settle()
    assert bench.applied == []
    assert bench.errors == []


async def test_a_seek_drops_the_queue_and_gives_its_bytes_back(bench: Bench) -> None:
    bench.gate.clear()
    bench.put(0, 5)
    bench.put(5, 9)
    await settle()
    bench.lane.seek(3)
    assert bench.budget.used == 10  # the one in hand
    bench.gate.set()
    await settle()
    assert bench.applied == [(0, 5)]
    assert bench.moves[-1][0] == 3
    assert bench.budget.used == 0


async def test_a_seek_is_settled_only_when_no_apply_is_in_hand(bench: Bench) -> None:
    bench.gate.clear()
    bench.put(0, 5)
    await settle()
    settled = bench.lane.seek(0)
    await settle()
    assert not settled.done()
    bench.gate.set()
    await settled
    assert bench.moves[-1][0] == 0


async def test_only_the_last_of_several_seeks_is_carried_out(bench: Bench) -> None:
    bench.gate.clear()
    bench.put(0, 5)
    await settle()
    for position in (1, 2, 3):
        bench.lane.seek(position)
    bench.gate.set()
    await settle()
    assert [position for position, _ in bench.moves] == [0, 3]


async def test_a_held_lane_wants_and_takes_nothing(bench: Bench) -> None:
    turn = bench.turn
    await bench.lane.hold()
    bench.put(0, 5, turn=turn)
    await settle()
    assert not bench.lane.wanting
    assert bench.applied == []


async def test_a_seek_leaves_a_held_lane_held(bench: Bench) -> None:
    await bench.lane.hold()
    await bench.lane.seek(4)
    assert not bench.lane.wanting
    assert [position for position, _ in bench.moves] == [0]


async def test_resume_goes_on_from_the_position_given(bench: Bench) -> None:
    await bench.lane.hold()
    await bench.lane.resume(7)
    bench.put(7, 8)
    await settle()
    assert bench.applied == [(7, 8)]


async def test_a_full_lane_wants_no_more_until_a_batch_is_taken(bench: Bench) -> None:
    bench.gate.clear()
    for start in (0, 1, 2):  # one in hand, two queued
        bench.put(start, start + 1)
        await settle()
    assert not bench.lane.wanting
    bench.gate.set()
    await settle()
    assert bench.lane.wanting


async def test_the_end_waits_for_the_apply_in_hand_and_drops_the_rest(bench: Bench) -> None:
    bench.gate.clear()
    bench.put(0, 5)
    bench.put(5, 9)
    await settle()
    ending = asyncio.create_task(bench.lane.end())
    await settle()
    assert not ending.done()
    bench.gate.set()
    await ending
    assert bench.applied == [(0, 5)]


async def test_nothing_is_taken_after_the_end(bench: Bench) -> None:
    turn = bench.turn
    await bench.lane.end()
    bench.put(0, 5, turn=turn)
    assert bench.budget.used == 0
    await bench.lane.seek(0)  # settled at once: no apply will come


@pytest.mark.parametrize("step", ["apply", "move"])
async def test_an_exception_is_reported_and_ends_the_lane(step: str) -> None:
    bench = Bench()

    async def fail(*_: object) -> None:
        raise RuntimeError(step)

    failing: Callable[..., Awaitable[None]] = fail
    lane = Lane(
        TP,
        apply=failing if step == "apply" else bench.apply,
        lost=bench.lost,
        move=failing if step == "move" else bench.move,
        budget=bench.budget,
        limits=LaneLimits(batches=2, bytes=1000),
        fatal=bench.errors.append,
    )
    await lane.resume(0)
    if step == "apply":
        lane.put(Delivery(Batch(*TP, 0, 1, [Record(0, 0, None, b"")]), bench.turn, 10))
    await settle()
    assert [str(error) for error in bench.errors] == [step]
    assert not lane.wanting
    assert bench.budget.used == 0


async def test_the_budget_keeps_others_waiting_while_it_is_used_up() -> None:
    budget = Budget(100)
    budget.take(150)  # one delivery may pass the limit, the next waits
    waiting = asyncio.create_task(budget.room())
    await settle()
    assert not waiting.done()
    budget.give(100)
    await waiting
