"""From what a trainer hands over to frames: checked, summed, split, numbered."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence as Several
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from driftline.client.splitting import (
    MAX_STEP,
    PARTS,
    Sender,
    Sequence,
    as_ids,
    as_matrix,
    delete_frames,
    gradient_frames,
    sum_duplicates,
    upsert_frames,
)
from driftline.errors import InputError, RepeatedStepError
from driftline.frames.events import Delete, Gradient, Upsert, write_event
from driftline.ids import shard_of
from driftline.shard.acceptance import check_ids
from tests.oracle.f32 import add, f32
from tests.support.samples import TABLE, P, u64

WIDE = replace(TABLE, dim=50, shards=3, optimizer={"kind": "adam"})
SENDER = Sender(WIDE, P, 2)
IDS = st.lists(st.integers(0, 2**64 - 1), unique=True, max_size=150).map(sorted)


@given(st.lists(st.integers(0, 2**64 - 1), max_size=20))
def test_every_64_bit_id_is_taken_from_plain_lists(ids: list[int]) -> None:
    found = as_ids(ids)
    assert found.dtype == np.uint64
    assert found.tolist() == ids


@pytest.mark.parametrize(
    "ids", [np.array([3, 1], np.int32), np.array([3, 1], ">u8"), (3, 1), np.arange(8)[3::-2]]
)
def test_ids_come_as_any_whole_numbers(ids: Any) -> None:
    assert as_ids(ids).tolist() == [3, 1]


@pytest.mark.parametrize(
    "ids",
    [[-1], [-1, 2**63], [1.0], [True], ["a", "b"], [None, 1], [2**64], [1, 2**64], [[1]], 7, [1.5, 2**63]],
)
def test_anything_else_is_refused(ids: Any) -> None:
    with pytest.raises(InputError):
        as_ids(ids)


def test_a_matrix_has_the_shape_asked_for_and_is_finite_in_float32() -> None:
    assert as_matrix("grads", [[1, 2], [3, 4]], 2, 2).dtype == np.float32
    wrong: list[tuple[Any, str]] = [
        ([[1, 2]], "grads for table t need 2 rows, one for each id, got 1"),
        ([[1, 2, 3, 4]] * 2, "grads for table t need 2 columns, got 4"),
        ([1, 2, 3, 4], "grads for table t must be numbers of shape"),
        ([["a", "b"], ["c", "d"]], "grads for table t must be numbers of shape"),
    ]
    for bad, message in wrong:
        with pytest.raises(InputError, match=message):
            as_matrix("grads for table t", bad, 2, 2)
    for value in (float("nan"), float("inf"), 1e39):
        with pytest.raises(InputError, match="row 1 is not finite in float32"):
            as_matrix("rows", [[1.0, 2.0], [3.0, value]], 2, 2)


@given(st.lists(st.tuples(st.integers(0, 4), st.floats(-1e6, 1e6, width=32)), max_size=30))
def test_duplicates_are_summed_in_order_of_occurrence(pushes: list[tuple[int, float]]) -> None:
    ids, grads = (
        u64([row for row, _ in pushes]),
        np.array([[g] for _, g in pushes], np.float32).reshape(-1, 1),
    )
    expected: dict[int, float] = {}
    for row, g in pushes:
        expected[row] = add(expected[row], g) if row in expected else f32(g)
    distinct, sums = sum_duplicates(ids, grads)
    assert distinct.tolist() == sorted(expected)
    assert sums.tobytes() == np.array([expected[row] for row in sorted(expected)], np.float32).tobytes()


@pytest.mark.parametrize("width", [1, 2, 3, 64, 257])
def test_an_id_that_comes_often_is_summed_row_by_row(width: int) -> None:
    rng = np.random.default_rng(width)
    ids = np.sort(rng.zipf(1.3, 3_000) % 500).astype(np.uint64)[rng.permutation(3_000)]
    grads = (rng.standard_normal((3_000, width)) * 10.0 ** rng.integers(-6, 6, (3_000, 1))).astype(np.float32)
    expected: dict[int, Any] = {}
    for row, g in zip(ids.tolist(), grads, strict=True):
        expected[row] = expected[row] + g if row in expected else g
    distinct, sums = sum_duplicates(ids, grads)
    assert distinct.tolist() == sorted(expected)
    assert sums.tobytes() == np.array([expected[row] for row in sorted(expected)]).tobytes()


@pytest.mark.parametrize("times", [2, 8, 9, 50])
@pytest.mark.parametrize("width", [1, 4])
def test_minus_zeros_sum_to_minus_zero(times: int, width: int) -> None:
    _, sums = sum_duplicates(u64([7] * times), np.full((times, width), -0.0, np.float32))
    assert np.signbit(sums).all()


def test_a_lone_minus_zero_stays_one() -> None:
    _, sums = sum_duplicates(u64([2, 1, 1]), np.array([[-0.0], [1], [1]], np.float32))
    assert np.signbit(sums[:, 0]).tolist() == [False, True]


def test_steps_rise_and_number_their_parts() -> None:
    sequence = Sequence()
    sequence.begin(None)
    assert (sequence.take(2), sequence.take(1)) == (0, 2)
    sequence.begin(None)
    assert sequence.take(1) == 1 << 16
    sequence.begin(9)
    assert sequence.take(1) == 9 << 16
    sequence.more(None)
    assert sequence.take(1) == (9 << 16) + 1


@pytest.mark.parametrize("step", [4, 5])
def test_a_step_that_does_not_rise_is_refused_by_name(step: int) -> None:
    sequence = Sequence()
    sequence.begin(5)
    with pytest.raises(RepeatedStepError, match="the last was 5"):
        sequence.begin(step)


@pytest.mark.parametrize("step", [-1, MAX_STEP + 1])
def test_a_step_outside_48_bits_is_refused(step: int) -> None:
    with pytest.raises(InputError, match="whole number"):
        Sequence().begin(step)


def test_a_step_has_no_more_frames_than_16_bits_number() -> None:
    sequence = Sequence()
    sequence.begin(0)
    assert sequence.take(PARTS) == 0
    with pytest.raises(InputError, match="push less"):
        sequence.take(1)


Frames = Several[Gradient] | Several[Upsert] | Several[Delete]


def check(frames: Frames, ids: list[int], seqs: dict[int, int]) -> None:
    """Check what every kind of split keeps; `seqs` holds the last number per shard."""
    covered: dict[int, list[int]] = defaultdict(list)
    for frame in frames:
        assert len(frame.ids) > 0
        assert len(write_event(frame)) <= WIDE.policy.max_frame
        check_ids(frame.ids, frame.shard, WIDE.shards)
        assert (frame.table, frame.origin.producer, frame.origin.epoch) == ("items", P, 2)
        assert frame.origin.seq > seqs.get(frame.shard, -1)
        seqs[frame.shard] = frame.origin.seq
        covered[frame.shard] += frame.ids.tolist()
    expected: dict[int, list[int]] = defaultdict(list)
    for row, shard in zip(ids, shard_of(u64(ids), WIDE.shards).tolist(), strict=True):
        expected[shard].append(row)
    assert dict(covered) == dict(expected)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.sampled_from("gud"), IDS), max_size=5))
def test_frames_cover_the_ids_fit_the_limit_and_rise_per_shard(calls: list[tuple[str, list[int]]]) -> None:
    sequence, seqs = Sequence(), dict[int, int]()
    for kind, rows in calls:
        ids = u64(rows)
        values = np.arange(len(ids) * 50, dtype=np.float32).reshape(-1, 50)
        where = dict.fromkeys(range(3), 2**64 - 1)
        if kind == "g":
            sequence.begin(None)
            frames = gradient_frames(SENDER, sequence, ids, values, where, np.float32(0.5))
            check(frames, rows, seqs)
            assert {frame.read_pos for frame in frames} <= {2**64 - 1}
            given_rows = {int(r): g.tobytes() for f in frames for r, g in zip(f.ids, f.grads, strict=True)}
            assert given_rows == {row: values[at].tobytes() for at, row in enumerate(rows)}
        elif kind == "u":
            sequence.more(None)
            state = np.zeros((len(ids), WIDE.state_size), np.float32)
            check(upsert_frames(SENDER, sequence, ids, values, state), rows, seqs)
        else:
            sequence.more(None)
            deletes = delete_frames(SENDER, sequence, ids)
            check(deletes, rows, seqs)
            assert all(len(frame.ids) * WIDE.dim * 4 <= WIDE.policy.max_frame for frame in deletes)


def test_a_push_of_nothing_makes_no_frame_and_still_counts_as_a_step() -> None:
    sequence = Sequence()
    sequence.begin(3)
    assert gradient_frames(SENDER, sequence, u64([]), np.zeros((0, 50), np.float32), {}, None) == []
    with pytest.raises(RepeatedStepError):
        sequence.begin(3)


def test_the_widest_row_a_table_allows_fits_into_one_frame() -> None:
    least = 1024 + 8 + 4 * (8192 + 2 * 8192 + 2)
    table = replace(WIDE, name="n" * 100, dim=8192, policy=replace(WIDE.policy, max_frame=least))
    sequence = Sequence()
    sequence.begin(MAX_STEP)
    rows, state = np.zeros((2, 8192), np.float32), np.zeros((2, table.state_size), np.float32)
    frames = upsert_frames(Sender(table, P, 2**32 - 1), sequence, u64([1, 2]), rows, state)
    assert all(len(write_event(frame)) <= least for frame in frames)


def test_a_named_producer_must_say_its_steps() -> None:
    with pytest.raises(InputError, match="give step="):
        Sequence(named=True).begin(None)
    with pytest.raises(InputError, match="give step="):
        Sequence(named=True).more(None)
    sequence = Sequence(named=True)
    sequence.more(3)
    sequence.more(None)
    assert sequence.take(1) == 3 << 16
    sequence.begin(4)
    assert sequence.take(1) == 4 << 16
