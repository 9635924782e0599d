"""Gradients of several steps travel as one: where they are cut, what they sum to, what they say."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from itertools import groupby

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from driftline.client.outbox import Outbox, Records
from driftline.client.pending import Pending
from driftline.client.splitting import Sender, Sequence
from driftline.errors import InputError, RepeatedStepError
from driftline.frames.events import Gradient, read_event
from tests.oracle.f32 import add
from tests.support.samples import FOREIGN, MINE, TABLE, P

A, B, C = MINE[:3]
ROW = [[1.0, 1.0]]


def outbox(merge_steps: int) -> Outbox:
    return Outbox(Sender(TABLE, P, 3), merge_steps=merge_steps, sequence=Sequence(named=True))


def pending(merge_steps: int = 4) -> Pending:
    return Pending(outbox(merge_steps))


def gradients(records: Records) -> list[Gradient]:
    found = [read_event(record.value, limit=1 << 20) for _, record in records]
    return [event for event in found if isinstance(event, Gradient)]


def steps(records: Records) -> list[int]:
    return [event.origin.seq >> 16 for event in gradients(records)]


def one(records: Records) -> Gradient:
    (event,) = gradients(records)
    return event


def test_steps_travel_with_the_last_one_before_the_next_multiple() -> None:
    table = pending(4)
    sent = [table.push([A], ROW, step, {}, None) for step in range(9)]
    assert [steps(records) for records in sent] == [[], [], [], [3], [], [], [], [7], []]
    assert one(sent[3]).grads.tolist() == [[4.0, 4.0]]


def test_where_steps_are_left_out_the_last_one_pushed_gives_the_number() -> None:
    table = pending(4)
    sent = [table.push([A], ROW, step, {}, None) for step in (1, 2, 6, 15, 16)]
    assert [steps(records) for records in sent] == [[], [], [2], [6, 15], []]


def test_one_step_alone_is_sent_at_once() -> None:
    assert steps(pending(1).push([A], ROW, 5, {}, None)) == [5]


def test_a_frame_is_as_old_as_the_oldest_rows_in_it_shard_by_shard() -> None:
    table = pending(3)
    table.push([A], ROW, 0, {0: 20, 1: 1}, None)
    table.push([A, FOREIGN], ROW * 2, 1, {0: 10, 1: 9}, None)
    sent = gradients(table.push([A], ROW, 2, {0: 30, 1: 2}, None))
    assert {event.shard: event.read_pos for event in sent} == {0: 10, 1: 9}


def test_a_frame_says_no_position_when_a_push_in_it_said_none() -> None:
    table = pending(2)
    table.push([A, FOREIGN], ROW * 2, 0, {0: 20, 1: 5}, None)
    sent = gradients(table.push([A], ROW, 1, {}, None))
    assert {event.shard: event.read_pos for event in sent} == {0: None, 1: 5}


def test_what_the_caller_does_with_its_arrays_after_a_push_changes_nothing() -> None:
    table, ids = pending(2), np.array([A, B], np.uint64)
    buffer = np.ones((2, 2), np.float32)
    table.push(ids, buffer, 0, {}, None)
    buffer[:] = 7
    ids[:] = C
    sent = one(table.push([A], ROW, 1, {}, None))
    assert (sent.ids.tolist(), sent.grads.tolist()) == ([A, B], [[2, 2], [1, 1]])


@pytest.mark.parametrize("lr", [None, 0.5])
def test_another_learning_rate_within_merged_steps_is_refused(lr: float | None) -> None:
    table = pending(2)
    table.push([A], ROW, 0, {}, 0.25)
    with pytest.raises(InputError, match=r"step 1 has lr .*steps from 0 on.* have 0\.25"):
        table.push([A], ROW, 1, {}, lr)
    assert one(table.push([B], ROW, 1, {}, 0.25)).lr == np.float32(0.25)
    assert one(table.push([A], ROW, 3, {}, lr)).lr == (None if lr is None else np.float32(lr))


@pytest.mark.parametrize(
    ("call", "error"),
    [
        (partial(Pending.push, ids=[A], grads=[[3e38, 0]], step=1, read={}, lr=None), InputError),
        (partial(Pending.push, ids=[A], grads=ROW, step=0, read={}, lr=None), RepeatedStepError),
        (partial(Pending.push, ids=[A], grads=ROW, step=1, read={}, lr=None, traceparent="x"), InputError),
        (partial(Pending.upsert, ids=[A], rows=ROW, state=None, step=0), RepeatedStepError),
        (partial(Pending.upsert, ids=[A], rows=ROW, state=None, traceparent="x"), InputError),
        (partial(Pending.delete, ids=[A], step=-1), InputError),
    ],
)
def test_a_call_that_is_refused_leaves_what_was_merged(
    call: Callable[[Pending], Records], error: type[Exception]
) -> None:
    table = pending(2)
    table.push([A], [[3e38, 0]], 0, {}, None)
    with pytest.raises(error):
        call(table)
    sent = one(table.push([B], ROW, 1, {}, None))
    assert (sent.ids.tolist(), sent.grads[0, 0]) == ([A, B], np.float32(3e38))


def test_rows_set_or_deleted_come_behind_what_was_merged_before_them() -> None:
    box = outbox(4)
    table = Pending(box)
    table.push([A], ROW, 0, {}, None)
    sent = table.delete([A])
    kinds = [type(read_event(record.value, limit=1 << 20)).__name__ for _, record in sent]
    assert kinds == ["Gradient", "Delete"]
    assert box.half_merged is None
    assert [event.origin.seq for event in gradients(sent)] == [0]
    table.push([A], ROW, 1, {}, None)
    sent = table.upsert([A], ROW, None, step=2)
    assert [read_event(record.value, limit=1 << 20).origin.seq >> 16 for _, record in sent] == [1, 2]


@pytest.mark.parametrize("bad", [0, -1, True, 1.5, (1 << 16) + 1])
def test_merge_steps_is_a_whole_number(bad: int) -> None:
    with pytest.raises(InputError, match="merge_steps"):
        outbox(bad)


@dataclass(frozen=True)
class Push:
    """A step of a trainer; `cuts`: it cuts behind it, as before a checkpoint."""

    step: int
    ids: list[int]
    grads: list[float]
    kind: str
    cuts: bool


SAME_IDS = st.lists(
    st.tuples(st.sampled_from([*MINE[:3], FOREIGN]), st.floats(-1e6, 1e6, width=32)), max_size=8
)


@st.composite
def plans(draw: st.DrawFn) -> list[Push]:
    """Draw steps, some left out."""
    made: list[Push] = []
    for step in draw(st.lists(st.integers(0, 40), unique=True, max_size=20).map(sorted)):
        rows = draw(SAME_IDS)
        kind = draw(st.sampled_from(["push"] * 6 + ["delete"]))
        made.append(
            Push(step, [r for r, _ in rows], [g for _, g in rows], kind, draw(st.integers(0, 5)) == 0)
        )
    return made


def take(table: Pending, box: Outbox, push: Push) -> Records:
    if push.kind == "delete":
        sent = table.delete(push.ids, step=push.step)
    else:
        matrix = np.array(push.grads, np.float32).reshape(-1, 1).repeat(2, axis=1)
        sent = table.push(push.ids, matrix, push.step, {0: push.step, 1: push.step}, None)
    return sent + (box.cut() if push.cuts else [])


@settings(deadline=None)
@given(plans(), st.integers(1, 6))
def test_a_trainer_that_goes_on_from_any_checkpoint_sends_the_same_frames(plan: list[Push], m: int) -> None:
    box = outbox(m)
    table, sent, checkpoints = Pending(box), [], [0]
    for push in plan:
        sent.append(take(table, box, push))
        if box.half_merged is None:  # a flush is refused elsewhere
            checkpoints.append(len(sent))
    for start in checkpoints:
        again = outbox(m)
        resumed = Pending(again)
        assert [r for p in plan[start:] for r in take(resumed, again, p)] == [
            r for s in sent[start:] for r in s
        ]


@settings(deadline=None)
@given(plans(), st.integers(1, 6))
def test_merged_gradients_are_those_of_a_loop_that_adds_them_in_order(plan: list[Push], m: int) -> None:
    pushes = [push for push in plan if push.kind == "push"]
    expected: list[tuple[int, dict[int, float]]] = []
    for _, window in groupby(pushes, key=lambda push: push.step // m):
        sums: dict[int, float] = {}
        last = 0
        for push in window:
            last = push.step
            for row, grad in zip(push.ids, push.grads, strict=True):
                sums[row] = add(sums[row], grad) if row in sums else grad
        expected.append((last, sums))
    box = outbox(m)
    table = Pending(box)
    found: dict[int, dict[int, float]] = {}
    for event in gradients(
        [
            r
            for p in pushes
            for r in table.push(p.ids, [[g, g] for g in p.grads] or np.zeros((0, 2)), p.step, {}, None)
        ]
        + box.cut()
    ):
        rows = dict(zip(event.ids.tolist(), event.grads[:, 0].tolist(), strict=True))
        found.setdefault(event.origin.seq >> 16, {}).update(rows)
    wanted = {last: sums for last, sums in expected if sums}
    assert {k: {i: np.float32(v).tobytes() for i, v in sums.items()} for k, sums in found.items()} == {
        k: {i: np.float32(v).tobytes() for i, v in sums.items()} for k, sums in wanted.items()
    }
