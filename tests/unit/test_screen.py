"""Judging a stretch of log: what is rejected, what is only counted, how far the position moves."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from driftline.errors import StateError
from driftline.frames.events import Event, Origin, write_event
from driftline.frames.headers import MAC
from driftline.frames.reasons import Reason
from driftline.frames.unreadable import unreadable
from driftline.ids import OPS_PRODUCER, lsn
from driftline.log import Record
from driftline.shard.machine import Shard
from driftline.shard.plan import Gradients, Plan, Removals, Values
from driftline.shard.position import fingerprint
from driftline.shard.spec import Policy
from tests.support.samples import (
    FOREIGN,
    KEYRING,
    MINE,
    STRANGER,
    TABLE,
    TTL,
    P,
    Q,
    born,
    delete,
    feed,
    gradient,
    log_of,
    op,
    record,
    restore_rows,
    spec_op,
    take,
    upsert,
)

A, B, C = MINE[:3]


def screened(*events: Event | bytes) -> tuple[Shard, Plan]:
    """Judge `events` behind a table's spec, in one batch."""
    shard = born()
    return shard, shard.screen(log_of(events)[1:])


def reasons(plan: Plan) -> list[str]:
    return [str(rejected.reason) for rejected in plan.rejected]


def test_gradients_of_many_frames_make_one_run_in_log_order() -> None:
    _, plan = screened(gradient([A, B], 1, value=1), gradient([A], 2, value=2, lr=0.25))
    (run,) = plan.runs
    assert isinstance(run, Gradients)
    assert run.ids.tolist() == [A, B, A]
    assert run.grads[:, 0].tolist() == [1, 1, 2]
    assert run.lr.tolist() == [0.5, 0.5, 0.25]
    assert run.lsn.tolist() == [lsn(1, 1), lsn(1, 1), lsn(1, 2)]
    assert plan.counts["rows"] == 3


def test_explicit_rows_and_deletes_cut_the_run() -> None:
    _, plan = screened(gradient([A], 1), upsert([B], 2), gradient([A], 3), delete([A], 4))
    assert [type(run) for run in plan.runs] == [Gradients, Values, Gradients, Removals]


def test_the_position_moves_over_exactly_what_was_judged() -> None:
    events: list[Event | bytes] = [gradient([A], 1), b"garbage", gradient([A], 2)]
    shard, plan = screened(*events)
    last = log_of(events)[-1]
    assert plan.consumed == 3
    assert (shard.position.next, shard.position.fp) == (4, fingerprint(last))
    assert shard.position.time == last.timestamp


def test_judging_stops_behind_the_first_op_and_leaves_it_to_be_applied() -> None:
    shard, plan = screened(gradient([A], 1), op("barrier", 2), gradient([A], 2))
    assert plan.consumed == 2
    assert plan.op is not None
    assert plan.op.op.kind == "barrier"
    assert shard.position.next == 2
    assert shard.position.op == 1  # the spec's


def test_a_sequence_number_used_before_is_a_counted_no_op() -> None:
    _, plan = screened(gradient([A], 5), gradient([A], 5), gradient([B], 4), gradient([C], 4, epoch=1))
    assert plan.counts["duplicate"] == 2
    (run,) = plan.runs
    assert run.ids.tolist() == [A, C]


def test_an_op_seen_before_is_a_counted_no_op() -> None:
    _, plan = screened(spec_op(), gradient([A], 1))
    assert plan.op is None
    assert (plan.counts["duplicate"], plan.consumed) == (1, 2)


@pytest.mark.parametrize(
    ("event", "reason"),
    [
        (replace(gradient([A], 7), table="users"), "unknown_table"),
        (replace(gradient([A], 7), shard=1), "wrong_shard"),
        (gradient([FOREIGN], 7), "foreign_ids"),
        (gradient([B, A], 7), "unsorted_ids"),
        (gradient([A], 7, table=replace(TABLE, dim=3)), "wrong_dim"),
        (upsert([A], 7, value=np.nan), "non_finite"),
        (gradient(range(400), 7), "oversized"),
    ],
)
def test_a_well_formed_frame_that_is_rejected_uses_up_its_seq(event: Event, reason: str) -> None:
    shard, plan = screened(event, gradient([A], 7))
    assert reasons(plan) == [reason]
    assert plan.counts["duplicate"] == 1
    assert shard.position.producers[P].seq == 7


@pytest.mark.parametrize(
    "kind", ["garbage", "bad signature", "ops producer", "op of a client", "unsigned op"]
)
def test_a_forged_or_undecodable_frame_uses_up_nothing(kind: str) -> None:
    shard = born()
    forged = {
        "garbage": record(b"garbage", 1),
        "bad signature": record(gradient([A], 7), 1, headers=((MAC, b"0" * 64),)),
        "ops producer": record(replace(gradient([A], 7), origin=Origin(OPS_PRODUCER, 0, 7)), 1),
        "op of a client": record(replace(op("barrier", 2), origin=Origin(P, 0, 2)), 1),
        "unsigned op": record(op("barrier", 2), 1, keyring=None),
    }[kind]
    plan = shard.screen([forged])
    assert reasons(plan) == ["undecodable" if kind == "garbage" else "forged"] or reasons(plan) == [
        "truncated"
    ]
    assert (shard.position.op, dict(shard.position.producers), plan.op) == (1, {}, None)


@pytest.mark.parametrize(
    ("mark", "reason"),
    [
        (unreadable(Reason.BAD_HEADER, b"\xff=1"), "bad_header"),
        (unreadable(Reason.OVERSIZED, b"a batch"), "oversized"),
        (("dl-unreadable", b"forged by a client"), "bad_header"),
    ],
)
def test_an_unreadable_record_is_refused_whoever_signed_it_and_uses_up_nothing(
    mark: tuple[str, bytes], reason: str
) -> None:
    shard = born()
    events: list[Event] = [gradient([A], 7), op("barrier", 2)]
    for event in events:
        good = record(event, shard.position.next)
        plan = shard.screen([replace(good, headers=(*good.headers, mark))])
        assert reasons(plan) == [reason]
    assert (shard.position.op, dict(shard.position.producers), shard.position.next) == (1, {}, 3)


@pytest.mark.parametrize("most", [1, 3, 4, 100])
def test_a_plan_ends_behind_the_record_that_names_enough_rows_and_the_result_is_the_same(most: int) -> None:
    events: list[Event] = [gradient([A, B], 1), delete([A], 2), gradient([A, C], 3), delete([B, C], 4)]
    records = [record(event, at) for at, event in enumerate(events, 1)]
    whole, piecemeal = born(), born()
    whole.apply(whole.screen(records), None)
    rest, sizes = records, []
    while rest:
        plan = piecemeal.screen(rest, most)
        piecemeal.apply(plan, None)
        sizes.append(plan.counts["rows"])
        rest = rest[plan.consumed :]
    assert max(sizes) <= most + 1
    assert piecemeal.position.fields() == whole.position.fields()
    ids = np.array([A, B, C], np.uint64)
    assert piecemeal.states_of(ids).rows.tobytes() == whole.states_of(ids).rows.tobytes()
    assert piecemeal.states_of(ids).lsn.tolist() == whole.states_of(ids).lsn.tolist()


def test_an_op_signed_with_a_foreign_key_is_forged() -> None:
    plan = born().screen([record(op("barrier", 2), 1, keyring=STRANGER)])
    assert reasons(plan) == ["forged"]


def test_an_op_that_is_rejected_uses_up_its_number() -> None:
    shard = born()
    plan = shard.screen([record(op("quarantine", 2), 1), record(op("barrier", 2), 2)])
    assert reasons(plan) == ["bad_op"]
    assert (plan.counts["duplicate"], shard.position.op) == (1, 2)


def test_one_bad_frame_among_good_ones_is_left_out_alone() -> None:
    _, plan = screened(gradient([A], 1), gradient([C, B], 2), gradient([B], 3), gradient([FOREIGN], 4))
    (run,) = plan.runs
    assert run.ids.tolist() == [A, B]
    assert sorted(reasons(plan)) == ["foreign_ids", "unsorted_ids"]
    assert {rejected.record.offset for rejected in plan.rejected} == {2, 4}


def test_ids_may_go_back_between_frames() -> None:
    _, plan = screened(gradient([C], 1), gradient([A], 2), gradient([A], 3))
    assert plan.rejected == []


def test_records_before_the_spec_are_refused_and_only_the_spec_is_due() -> None:
    shard = Shard("items", 0, KEYRING)
    plan = shard.screen(
        [record(gradient([A], 1), 0), record(op("barrier", 1), 1), record(spec_op(number=2), 2)]
    )
    assert reasons(plan) == ["no_spec", "no_spec"]
    assert plan.op is not None


def test_gradients_read_before_a_restore_rows_lose_the_rows_it_names() -> None:
    shard = born()
    feed(shard, [record(restore_rows([A], 2), 1)])
    plan = shard.screen(
        [
            record(gradient([A, B], 1, read_pos=lsn(1, 1)), 2),
            record(gradient([A, B], 2, read_pos=lsn(1, 2)), 3),
            record(gradient([A, B], 3), 4),
        ]
    )
    (run,) = plan.runs
    assert run.ids.tolist() == [B, A, B, A, B]
    assert plan.counts["stale"] == 1


def test_a_stale_gradient_with_bad_ids_is_rejected_whole() -> None:
    shard = born()
    feed(shard, [record(restore_rows([A], 2), 1)])
    plan = shard.screen([record(gradient([B, A], 1, read_pos=lsn(1, 1)), 2)])
    assert reasons(plan) == ["unsorted_ids"]


def test_a_gradient_with_bad_ids_is_rejected_also_where_all_of_it_is_stale() -> None:
    shard = born()
    shard.position.floor = lsn(1, 5)
    plan = shard.screen([record(gradient([B, A], 1, read_pos=lsn(1, 5)), 9)])
    assert (reasons(plan), plan.counts["stale"]) == (["unsorted_ids"], 0)


def test_a_gradient_read_before_the_last_restore_is_dropped_whole() -> None:
    shard = born()
    shard.position.floor = lsn(1, 5)
    plan = shard.screen([record(gradient([A, B], 1, read_pos=lsn(1, 5)), 9)])
    assert (plan.runs, plan.counts["stale"]) == ([], 2)
    assert shard.position.producers[P].seq == 1


def test_where_the_policy_drops_gradients_without_read_pos_they_count_as_stale() -> None:
    shard = born(replace(TABLE, policy=Policy(without_read_pos="drop")))
    shard.position.floor = lsn(1, 5)
    assert shard.screen([record(gradient([A], 1), 9)]).counts["stale"] == 1


def test_what_is_forgotten_leaves_the_store_and_what_returns_does_not() -> None:
    shard = born()
    feed(shard, [record(gradient([A], 1), 1, at=0), record(gradient([A], 1, producer=Q), 2, at=0)])
    take(shard)
    late = 3_000_000
    feed(shard, [record(gradient([A], 2), 3, at=late)])
    delta = take(shard)
    assert delta.removed == [b"p:" + Q]
    assert b"p:" + P in delta.fields


def test_a_restore_rows_in_force_ends_with_the_ttl() -> None:
    shard = born()
    feed(shard, [record(restore_rows([A], 2), 1)])
    take(shard)
    at = shard.position.time
    feed(shard, [record(b"garbage", 2, at=at + TTL)])
    assert list(shard.position.restored) == [A]
    feed(shard, [record(b"garbage", 3, at=at + TTL + 1)])
    assert list(shard.position.restored) == []
    assert take(shard).removed == [b"r:%d" % A]


def test_a_record_this_release_cannot_judge_stops_the_shard_right_before_it() -> None:
    newer = op("spec", 2, {**TABLE.to_json(), "machine_version": 99})
    shard = born()
    records = log_of([gradient([A], 1), newer, gradient([A], 2)])[1:]
    plan = shard.screen(records)
    assert plan.consumed == 1
    shard.apply(plan, None)
    before = shard.position.fields()
    with pytest.raises(StateError, match="upgrade"):
        shard.screen(records[1:])
    assert shard.position.fields() == before
    delta = take(shard)
    assert delta.next == 2
    assert delta.fields[b"p:" + P].startswith(b"0,1,")


def test_an_op_signed_for_another_group_is_forged_and_uses_up_no_number() -> None:
    shard = born()
    assert feed(shard, [record(op("barrier", 7), 1, group="other")]) == ["forged"]
    assert shard.position.op == 1
    assert feed(shard, [record(op("barrier", 2), 2)]) == []
    assert shard.position.op == 2


def test_a_table_belongs_to_the_group_of_its_first_spec() -> None:
    shard = Shard("items", 0, KEYRING)
    other = spec_op(replace(TABLE, group="other"), 9)
    assert feed(shard, [record(spec_op(), 0, group="other")]) == ["forged"], (
        "signed for one, made for another"
    )
    assert feed(shard, [record(spec_op(), 1), record(other, 2, group="other")]) == ["forged"]
    assert shard.position.op == 1


def test_a_signed_frame_of_an_ingest_router_of_another_group_is_forged() -> None:
    shard = born()
    values = [write_event(gradient([A], 5), more={"group": group}) for group in ("other", "default")]
    sent = [Record(1 + n, 1_000_001, None, value, KEYRING.sign(value)) for n, value in enumerate(values)]
    assert feed(shard, sent) == ["forged"]
    assert shard.position.producers[P].seq == 5


def test_an_op_copied_from_the_gradients_log_is_a_counted_no_op() -> None:
    shard = born()
    quarantine = record(op("quarantine", 2, {"producer": P.hex()}), 1)
    feed(shard, [quarantine, record(op("barrier", 3), 2)])
    plan = shard.screen([replace(quarantine, offset=3)])
    assert (plan.op, dict(plan.counts), plan.rejected) == (None, {"duplicate": 1}, [])
    assert shard.position.op == 3
