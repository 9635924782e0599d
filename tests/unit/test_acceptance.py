"""The verdict on one event, from the position alone."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from driftline.errors import FrameError, StateError
from driftline.frames.events import Delete, Gradient, Op, Upsert
from driftline.ids import MAX_INGEST_PARTITIONS, ingest_producer
from driftline.shard import acceptance
from driftline.shard.acceptance import Aged
from driftline.shard.position import Position
from driftline.shard.producers import Producer
from driftline.shard.spec import Policy
from tests.support.samples import (
    FOREIGN,
    MINE,
    TABLE,
    TTL,
    P,
    Q,
    born,
    delete,
    f32,
    gradient,
    op,
    restore_rows,
    spec_op,
    u64,
    upsert,
)

A, B, C = MINE[:3]


def reason(call: Any, *arguments: object) -> str:
    with pytest.raises(FrameError) as caught:
        call(*arguments)
    return caught.value.reason


def test_log_time_is_a_running_maximum() -> None:
    position = Position(time=100)
    acceptance.advance_time(position, 90, TTL)
    assert position.time == 100
    acceptance.advance_time(position, 110, TTL)
    assert position.time == 110


def test_the_silent_are_forgotten_once_longer_silent_than_the_ttl() -> None:
    position = Position(time=0)
    position.producers.set(P, 0, 1, 0)
    position.producers.set(Q, 0, 1, 1)
    position.restored.set(u64([A]), 5, 0)
    position.restored.set(u64([B]), 6, 1)
    assert acceptance.advance_time(position, TTL, TTL) == Aged([], [], [])
    assert acceptance.advance_time(position, TTL + 1, TTL) == Aged([P], [], [A])
    assert (list(position.producers), list(position.restored)) == ([Q], [B])


def test_a_partition_of_the_ingest_topic_is_never_forgotten_and_costs_one_step_per_ttl() -> None:
    position = Position()
    last, beyond = ingest_producer(MAX_INGEST_PARTITIONS - 1), ingest_producer(MAX_INGEST_PARTITIONS)
    for name in (last, P, beyond):
        position.producers.set(name, 2, 7, 0)
    assert acceptance.advance_time(position, TTL + 1, TTL) == Aged([P, beyond], [last], [])
    assert {name: position.producers[name] for name in position.producers} == {last: Producer(2, 7, TTL + 1)}
    assert acceptance.advance_time(position, 2 * TTL + 1, TTL) == Aged([], [], []), "it counts as heard of"
    assert not acceptance.take_seq(position, gradient([A], 7, producer=last, epoch=2))


@pytest.mark.parametrize(
    ("epoch", "seq", "fresh"), [(1, 6, True), (2, 0, True), (1, 5, False), (1, 4, False), (0, 9, False)]
)
def test_a_sequence_number_counts_once_per_producer_epoch(epoch: int, seq: int, fresh: bool) -> None:
    position = Position(time=50)
    position.producers.set(P, 1, 5, 10)
    assert acceptance.take_seq(position, gradient([A], seq, epoch=epoch)) is fresh
    seen = position.producers[P]
    assert (seen.epoch, seen.seq) == ((epoch, seq) if fresh else (1, 5))
    assert seen.time == 50  # a re-send is a sign of life too


def test_whoever_spoke_last_is_forgotten_last() -> None:
    position = Position()
    for producer in (P, Q, P):
        acceptance.take_seq(position, gradient([A], 1, producer=producer))
    assert list(position.producers) == [Q, P]


@pytest.mark.parametrize("event", [gradient([A], 1), upsert([A], 1), delete([A], 1), op("barrier", 1)])
def test_a_frame_for_another_log_is_refused(event: Gradient | Upsert | Delete | Op) -> None:
    acceptance.check_addressed(event, "items", 0)
    assert reason(acceptance.check_addressed, event, "users", 0) == "unknown_table"
    assert reason(acceptance.check_addressed, event, "items", 1) == "wrong_shard"


@pytest.mark.parametrize(
    ("event", "expected"),
    [
        (replace(gradient([A], 1), grads=f32([[1, 2, 3]], 3)), "wrong_dim"),
        (replace(upsert([A], 1), rows=f32([[1]], 1)), "wrong_dim"),
        (replace(upsert([A], 1), state=f32([[1]], 1)), "wrong_dim"),
        (upsert([A], 1, value=np.nan), "non_finite"),
        (upsert([A], 1, value=np.inf), "non_finite"),
        (upsert([B, A], 1), "unsorted_ids"),
        (upsert([FOREIGN], 1), "foreign_ids"),
        (delete([B, A], 1), "unsorted_ids"),
        (delete([FOREIGN], 1), "foreign_ids"),
    ],
)
def test_a_frame_that_does_not_fit_the_table_is_refused(
    event: Gradient | Upsert | Delete, expected: str
) -> None:
    assert reason(acceptance.check_allowed, event, 100, Position(), TABLE) == expected


def test_ids_must_increase_strictly() -> None:
    acceptance.check_ids(u64([A, B, C]), 0, 2)
    acceptance.check_ids(u64([]), 0, 2)
    with pytest.raises(FrameError):
        acceptance.check_ids(u64([A, A]), 0, 2)


def test_a_frame_may_be_exactly_as_large_as_the_policy_says() -> None:
    limit = TABLE.policy.max_frame
    acceptance.check_allowed(gradient([A], 1), limit, Position(), TABLE)
    assert reason(acceptance.check_allowed, gradient([A], 1), limit + 1, Position(), TABLE) == "oversized"


def test_a_delete_weighs_as_if_it_carried_its_rows() -> None:
    wide = replace(TABLE, dim=64)
    limit = wide.policy.max_frame
    acceptance.check_allowed(delete([A, B], 1), limit - 2 * 64 * 4, Position(), wide)
    assert reason(acceptance.check_allowed, delete([A, B], 1), limit - 511, Position(), wide) == "oversized"


def test_a_quarantined_producer_is_shut_out_and_nobody_else() -> None:
    position = Position(quarantined={P: 3})
    assert reason(acceptance.check_allowed, gradient([A], 1), 100, position, TABLE) == "quarantined"
    acceptance.check_allowed(gradient([A], 1, producer=Q), 100, position, TABLE)


def test_state_that_is_not_finite_is_refused() -> None:
    table = replace(TABLE, optimizer={"kind": "rowwise_adagrad"})
    bad = f32([[np.inf]], 1)
    assert reason(acceptance.check_values, u64([A]), f32([[1, 2]]), bad, 0, table) == "non_finite"
    acceptance.check_values(u64([A]), f32([[1, 2]]), f32([[1]], 1), 0, table)


def test_a_gradient_without_read_pos_is_judged_as_the_policy_says() -> None:
    drop = replace(TABLE, policy=Policy(without_read_pos="drop"))
    assert acceptance.effective_read_pos(gradient([A], 1), TABLE) is None
    assert acceptance.effective_read_pos(gradient([A], 1), drop) == 0
    assert acceptance.effective_read_pos(gradient([A], 1, read_pos=7), drop) == 7


@pytest.mark.parametrize(
    ("read_pos", "floor", "stale"),
    [(5, 5, True), (4, 5, True), (6, 5, False), (0, 0, False), (None, 5, False)],
)
def test_rows_read_at_or_before_the_last_restore_are_stale(
    read_pos: int | None, floor: int, stale: bool
) -> None:
    assert acceptance.is_stale(read_pos, Position(floor=floor)) is stale


def test_only_ids_that_a_restore_rows_names_are_superseded() -> None:
    position = Position()
    position.restored.set(u64([A]), 10, 0)
    position.restored.set(u64([C]), 20, 0)
    assert acceptance.superseded(u64([A, B, C]), 10, position).tolist() == [True, False, True]
    assert acceptance.superseded(u64([A, B, C]), 11, position).tolist() == [False, False, True]
    assert acceptance.superseded(u64([A, B, C]), 21, position).tolist() == [False, False, False]


@pytest.mark.parametrize(
    ("event", "expected"),
    [
        (op("quarantine", 2), "bad_op"),
        (op("quarantine", 2, {"producer": "ab"}), "bad_op"),
        (op("quarantine", 2, {"producer": "zz" * 16}), "bad_op"),
        (op("quarantine", 2, {"producer": 7}), "bad_op"),
        (op("restore", 2), "bad_op"),
        (op("restore", 2, {"version": "V-N-1.0", "from_epoch": "0"}), "bad_op"),
        (op("restore", 2, {"from_epoch": 0}), "bad_op"),
        (op("prepare", 2, {"version": 1}), "bad_op"),
        (op("restore-rows", 2), "bad_op"),
        (restore_rows([FOREIGN], 2), "foreign_ids"),
        (restore_rows([A], 2, value=np.nan), "non_finite"),
        (op("explode", 2), "bad_op"),
        (op("spec", 2, {"name": "items"}), "bad_spec"),
        (op("spec", 2, {**TABLE.to_json(), "name": "users"}), "bad_spec"),
        (op("spec", 2, {**TABLE.to_json(), "dim": 3}), "bad_spec"),
        (op("spec", 2, {**TABLE.to_json(), "optimizer": "sgd"}), "bad_spec"),
        (op("spec", 2, TABLE.to_json(), shard=2), "bad_spec"),
    ],
)
def test_an_op_that_makes_no_sense_is_refused(event: Op, expected: str) -> None:
    assert reason(acceptance.check_op, event, born().position) == expected


@pytest.mark.parametrize(
    "event",
    [
        op("barrier", 2),
        op("prepare", 2, {"version": "V-N-1.0"}),
        op("prepare", 2, {"version": "", "prepare": 1}),
        op("restore", 2, {"version": "V-N-1.0", "from_epoch": 0}),
        op("restore", 2, {"version": "V-N-1.0", "absent": True}),
        op("quarantine", 2, {"producer": P.hex()}),
        restore_rows([A], 2),
        restore_rows([], 2),
        spec_op(replace(TABLE, optimizer={"kind": "sgd", "lr": 0.1}), 2),
    ],
)
def test_an_op_that_makes_sense_is_due(event: Op) -> None:
    acceptance.check_op(event, born().position)


def test_nothing_but_a_spec_comes_before_the_spec() -> None:
    acceptance.check_op(spec_op(), Position())
    assert reason(acceptance.check_op, op("barrier", 1), Position()) == "no_spec"


def test_a_newer_machine_version_stops_the_shard_instead_of_being_refused() -> None:
    newer = op("spec", 2, {**TABLE.to_json(), "machine_version": 2})
    with pytest.raises(StateError, match="upgrade"):
        acceptance.check_op(newer, born().position)


def test_a_quarantine_names_its_producer() -> None:
    assert acceptance.quarantined_producer(op("quarantine", 1, {"producer": P.hex()})) == P
