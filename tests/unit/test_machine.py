"""The shard as a state machine, rule by rule."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from driftline.errors import StateError
from driftline.frames.events import Event
from driftline.frames.states import GRADIENT_CAUSE, RESTORE_CAUSE, TOMBSTONE, UPSERT_CAUSE
from driftline.ids import lsn
from driftline.shard.cache import RowBlock
from driftline.shard.machine import Shard
from driftline.shard.numerics import initial_rows
from driftline.shard.plan import PendingOp
from driftline.shard.position import Position
from driftline.shard.restore import Preparation, VersionRows, preparation
from tests.support.samples import (
    KEYRING,
    MINE,
    TABLE,
    P,
    born,
    delete,
    f32,
    feed,
    gradient,
    log_of,
    op,
    record,
    restore_rows,
    rows_of,
    spec_op,
    take,
    u64,
    upsert,
)

A, B, C = MINE[:3]
ADAGRAD = replace(TABLE, optimizer={"kind": "rowwise_adagrad", "lr": 0.5})


def test_a_first_gradient_gives_birth_from_the_initial_row() -> None:
    shard = born()
    feed(shard, [record(gradient([A], 1, value=1.0), 1)])
    (row, state, at, ordinal) = rows_of(shard)[A]
    expected = initial_rows(u64([A]), 2, 1, np.float32(0.1)) - np.float32(0.5)
    assert (row, state, at, ordinal) == (expected.tobytes(), b"", lsn(1, 1), 0)
    assert (shard.position.rows, shard.position.ord) == (1, 1)


def test_ordinals_follow_the_log_and_are_never_given_twice() -> None:
    shard = born()
    feed(shard, log_of([gradient([B], 1), gradient([A, B], 2), delete([B], 3), gradient([B, C], 4)])[1:])
    assert {row: values[3] for row, values in rows_of(shard).items()} == {A: 1, B: 2, C: 3}
    assert (shard.position.rows, shard.position.ord) == (3, 4)


def test_births_within_one_batch_take_ordinals_in_log_order_across_waves() -> None:
    shard = born()
    feed(shard, log_of([gradient([B], 1), gradient([B], 2), gradient([A], 3), gradient([A, C], 4)])[1:])
    assert {row: values[3] for row, values in rows_of(shard).items()} == {B: 0, A: 1, C: 2}


def test_a_row_whose_result_is_not_finite_is_skipped_with_its_birth() -> None:
    shard = born(ADAGRAD)
    plan = shard.screen(log_of([gradient([A, B], 1, value=3e38), gradient([B], 2, value=1.0)])[1:])
    shard.apply(plan, None)
    assert plan.counts["nonfinite"] == 2
    assert {row: values[3] for row, values in rows_of(shard).items()} == {B: 0}


def test_an_upsert_starts_the_state_anew_unless_it_brings_one() -> None:
    shard = born(ADAGRAD)
    given_state = replace(upsert([B], 3), state=f32([[9]], 1))
    feed(shard, log_of([gradient([A], 1), upsert([A], 2), given_state])[1:])
    assert rows_of(shard)[A][:2] == (f32([[1, 1]]).tobytes(), f32([[0]], 1).tobytes())
    assert rows_of(shard)[B][1] == f32([[9]], 1).tobytes()


def test_deleting_what_does_not_exist_changes_nothing_but_the_position() -> None:
    shard = born()
    take(shard)
    feed(shard, [record(delete([A], 1), 1)])
    delta = take(shard)
    assert len(delta.states) == 0
    assert delta.next == 2


def test_a_delta_holds_each_changed_row_once_as_it_is_now() -> None:
    shard = born()
    take(shard)
    feed(shard, log_of([gradient([A], 1), gradient([A], 2), upsert([B], 3), delete([B], 4)])[1:])
    delta = take(shard)
    at = dict(zip(delta.states.ids.tolist(), range(2), strict=True))
    assert delta.states.flags[[at[A], at[B]]].tolist() == [GRADIENT_CAUSE, TOMBSTONE]
    assert delta.states.lsn[[at[A], at[B]]].tolist() == [lsn(1, 2), lsn(1, 4)]
    assert delta.fields[b"next"] == b"5"
    assert delta.fields[b"p:" + P] == b"0,4,1000004"
    assert b"spec" not in delta.fields  # written before
    assert not shard.dirty


def test_the_flags_name_the_cause_of_a_change() -> None:
    shard = born()
    feed(shard, log_of([gradient([A], 1), upsert([B], 2), restore_rows([C], 2)])[1:])
    states = take(shard).states
    assert dict(zip(states.ids.tolist(), states.flags.tolist(), strict=True)) == {
        A: GRADIENT_CAUSE,
        B: UPSERT_CAUSE,
        C: RESTORE_CAUSE,
    }


def test_a_restore_rows_stays_in_force_in_the_position() -> None:
    shard = born()
    take(shard)
    feed(shard, [record(restore_rows([A, B], 2, value=4), 1, at=2_000_000)])
    delta = take(shard)
    expected = b"%d,2000000" % lsn(1, 1)
    assert (delta.fields[b"r:%d" % A], delta.fields[b"r:%d" % B]) == (expected, expected)
    assert rows_of(shard)[A][0] == f32([[4, 4]]).tobytes()


def test_a_quarantine_shuts_the_producer_out_for_good() -> None:
    shard = born()
    take(shard)
    feed(shard, [record(op("quarantine", 2, {"producer": P.hex()}), 1)])
    assert take(shard).fields[b"q:" + P] == b"2"
    assert feed(shard, [record(gradient([A], 1), 2)]) == ["quarantined"]


def test_a_spec_change_counts_from_the_next_record_on() -> None:
    shard = born()
    slower = replace(TABLE, optimizer={"kind": "sgd", "lr": 0.25})
    events: list[Event | bytes] = [upsert([A], 1), gradient([A], 2), spec_op(slower, 2), gradient([A], 3)]
    feed(shard, log_of(events)[1:])
    assert rows_of(shard)[A][0] == f32([[0.25, 0.25]]).tobytes()
    assert shard.spec == slower


def test_a_prepare_is_remembered_and_a_restore_of_another_epoch_is_a_no_op() -> None:
    shard = born()
    late = op("restore", 3, {"version": "V-N-1.0", "from_epoch": 9})
    feed(shard, [record(op("prepare", 2, {"version": "V-N-1.0"}), 1), record(late, 2)])
    assert preparation(shard.position.prep) == Preparation(2, "V-N-1.0")
    assert (shard.position.op, shard.position.epoch) == (3, 0)


def test_who_gives_a_preparation_up_names_it() -> None:
    shard = born()
    asked: list[dict[str, object]] = [
        {"version": "V-N-1.0"},
        {"version": "", "prepare": 9},
        {"version": "", "prepare": 2},
    ]
    for number, body in enumerate(asked, 2):
        feed(shard, [record(op("prepare", number, body), number - 1)])
        assert bool(shard.position.prep) == (number < 4)


def test_a_restore_without_a_version_store_stops_the_shard() -> None:
    shard = born()
    with pytest.raises(StateError, match="no version store"):
        feed(shard, [record(op("restore", 2, {"version": "V-N-1.0", "from_epoch": 0}), 1)])
    assert (shard.position.next, shard.position.op) == (1, 1)


def test_a_restore_puts_the_version_s_rows_in_the_place_of_all() -> None:
    shard = born()
    feed(shard, log_of([gradient([A, B], 1), op("prepare", 2, {"version": "V-N-1.0"})])[1:])
    stored = RowBlock(
        u64([B, C]),
        np.ones(2, bool),
        f32([[1, 2], [3, 4]]),
        np.zeros((2, 0), np.float32),
        u64([7, 8]),
        np.array([1, 0], np.uint32),
    )
    restore = PendingOp(op("restore", 3, {"version": "V-N-1.0", "from_epoch": 0}), record(b"", 3))
    assert shard.restores(restore)
    shard.cache.begin_flight()
    shard.committed()
    shard.apply_op(restore, VersionRows(2, 2, [stored]))
    position = shard.position
    assert rows_of(shard) == {
        B: (f32([[1, 2]]).tobytes(), b"", 7, 1),
        C: (f32([[3, 4]]).tobytes(), b"", 8, 0),
    }
    assert (position.epoch, position.floor, position.prep) == (1, lsn(1, 3), "")
    assert (position.rows, position.ord) == (2, 2)  # the counter of ordinals never goes back
    assert P in position.producers  # what was sent stays sent
    feed(shard, [record(gradient([A], 2), 4)])
    assert rows_of(shard)[A][3] == 2


def test_behind_a_restore_the_rows_are_asked_of_the_store() -> None:
    shard = born()
    feed(shard, log_of([gradient([A, B], 1)])[1:])
    shard.cache.begin_flight()
    shard.committed()
    restore = PendingOp(op("restore", 2, {"version": "V-N-1.0", "from_epoch": 0}), record(b"", 2))
    shard.apply_op(restore, VersionRows(1, 9))
    assert (shard.position.rows, shard.position.ord) == (1, 9)
    assert shard.missing(u64([A, B, C])).tolist() == [A, B, C]


def test_rows_that_may_be_in_the_store_are_named_once() -> None:
    shard = born()
    feed(shard, log_of([gradient([A, B], 1)])[1:])
    take(shard)
    shard.cache.trim(0)
    plan = shard.screen([record(gradient([A, C], 2), 2), record(gradient([A], 3), 3)])
    assert plan.missing.tolist() == [A, C]
    assert shard.missing(u64([B])).tolist() == [B]


def test_nothing_is_missing_while_every_live_row_is_in_memory() -> None:
    shard = born()
    feed(shard, log_of([gradient([A], 1)])[1:])
    assert shard.screen([record(gradient([B], 2), 2)]).missing.tolist() == []
    assert shard.missing(u64([C])).tolist() == []


def test_states_of_absent_rows_are_tombstones_without_lsn() -> None:
    shard = born()
    feed(shard, log_of([gradient([A], 1)])[1:])
    states = shard.states_of(u64([A, B]))
    assert states.flags.tolist() == [GRADIENT_CAUSE, TOMBSTONE]
    assert states.lsn.tolist() == [lsn(1, 1), 0]


def test_a_shard_taken_over_knows_its_spec_from_the_position() -> None:
    position = Position.from_fields(born().position.fields())
    assert Shard("items", 0, KEYRING, position).spec == TABLE
    assert Shard("items", 0, KEYRING).spec is None


def test_a_mere_move_of_the_position_is_dirty_until_it_is_taken() -> None:
    shard = born()
    take(shard)
    seen = [shard.dirty]
    feed(shard, [record(b"garbage", 1)])
    seen.append(shard.dirty)
    assert take(shard).next == 2
    assert [*seen, shard.dirty] == [False, True, False]


def test_a_shard_taken_over_writes_the_producers_it_hears_of_and_no_others() -> None:
    senders = [bytes([n]) * 16 for n in range(50)]
    known = log_of([gradient([A], 1, producer=sender) for sender in senders])
    first = Shard("items", 0, KEYRING)
    feed(first, known)
    shard = Shard("items", 0, KEYRING, Position.from_fields(first.position.fields()))
    again, new = gradient([A], 1, producer=senders[7]), gradient([A], 1, producer=b"a stranger, new!")
    feed(shard, [record(again, len(known)), record(new, len(known) + 1)])
    written = {name for name in take(shard).fields if name.startswith(b"p:")}
    assert written == {b"p:" + senders[7], b"p:a stranger, new!"}
    assert len(shard.position.producers) == 51
