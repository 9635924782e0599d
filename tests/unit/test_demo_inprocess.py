"""The in-process table does the store's arithmetic, spelled out here one scalar at a time."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from driftline.demo.inprocess import InProcessTable, initial_rows, sum_duplicates, tree_sum
from driftline.demo.tables import Floats, Ids, TableSettings
from driftline.errors import InputError, RepeatedStepError
from driftline.shard import numerics
from driftline.shard.optimizers.rowwise_adagrad import RowwiseAdagrad

F32 = np.float32
SETTINGS = TableSettings(dims=5, lr=0.3, scale=0.1, seed=42)
MASK = (1 << 64) - 1


def ids(*values: int) -> Ids:
    return np.array(values, np.uint64)


def grads(rows: int, seed: int = 0) -> Floats:
    return np.random.default_rng(seed).normal(size=(rows, SETTINGS.dims)).astype(F32)


def mix(x: int) -> int:
    x = (x + 0x9E3779B97F4A7C15) & MASK
    x = ((x ^ (x >> 30)) * 0xBF58476D1CE4E5B9) & MASK
    x = ((x ^ (x >> 27)) * 0x94D049BB133111EB) & MASK
    return x ^ (x >> 31)


@given(st.integers(0, MASK), st.integers(0, MASK))
def test_an_initial_row_follows_the_formula(seed: int, id_: int) -> None:
    settings = TableSettings(dims=3, lr=1, scale=0.25, seed=seed)
    start = mix(seed ^ mix(id_))
    expected = [(F32(mix((start + j) & MASK) >> 40) * F32(2.0**-23) - F32(1)) * F32(0.25) for j in range(3)]

    row = initial_rows(ids(id_), settings)[0]

    assert row.tolist() == expected
    assert (row >= -0.25).all()
    assert (row < 0.25).all()


def test_a_sum_is_a_halving_tree_over_zero_padding() -> None:
    values = np.array([[1e8, 1.0, -1e8, 1.0, 3.0]], F32)
    a, b, c, d, e = values[0]
    zero = F32(0)
    level = [a + e, b + zero, c + zero, d + zero]

    assert tree_sum(values)[0] == (level[0] + level[2]) + (level[1] + level[3])


def test_one_update_is_row_wise_adagrad_in_the_stores_order() -> None:
    table = InProcessTable(SETTINGS)
    start, g = table.get(ids(9)).vectors[0], grads(1)
    acc = F32(0) + tree_sum(g * g)[0] / F32(5)
    rate = F32(0.3) / (np.sqrt(acc) + F32(1e-8))

    table.push(ids(9), g, step=0, read=None)

    assert table.get(ids(9)).vectors[0].tolist() == [w - rate * x for w, x in zip(start, g[0], strict=True)]
    assert table.rows_of(ids(9))[1][0] == acc


@given(st.integers(0, 2**32 - 1), st.integers(1, 6))
def test_pushes_leave_the_bits_that_the_stores_own_optimizer_leaves(seed: int, pushes: int) -> None:
    rng = np.random.default_rng(seed)
    table, optimizer = InProcessTable(SETTINGS), RowwiseAdagrad(lr=F32(SETTINGS.lr), eps=F32(SETTINGS.eps))
    some = np.unique(rng.integers(0, 2**64, 4, dtype=np.uint64))
    rows = numerics.initial_rows(some, SETTINGS.dims, SETTINGS.seed, F32(SETTINGS.scale))
    state, lr = np.zeros((len(some), 1), F32), np.full(len(some), SETTINGS.lr, F32)

    for step in range(pushes):
        g = rng.normal(size=(len(some), SETTINGS.dims)).astype(F32) * F32(10.0 ** rng.integers(-6, 6))
        rows, state = optimizer.step(rows, state, g, lr)
        table.push(some, g, step=step, read=None)

    assert table.get(some).vectors.tobytes() == rows.tobytes()
    assert table.rows_of(some)[1].tobytes() == state[:, 0].tobytes()


def test_the_accumulator_slows_a_row_down_from_push_to_push() -> None:
    table, g = InProcessTable(SETTINGS), grads(1)
    rows = [table.get(ids(1)).vectors]
    for step in range(3):
        table.push(ids(1), g, step=step, read=None)
        rows.append(table.get(ids(1)).vectors)

    moved = [float(np.abs(b - a).max()) for a, b in pairwise(rows)]
    assert moved[0] > moved[1] > moved[2] > 0


@given(st.lists(st.tuples(st.integers(0, 4), st.floats(-1e3, 1e3, width=32)), min_size=1, max_size=40))
def test_duplicates_are_summed_in_order_of_occurrence(pairs: list[tuple[int, float]]) -> None:
    expected: dict[int, np.float32] = {}
    for id_, value in pairs:
        expected[id_] = expected[id_] + F32(value) if id_ in expected else F32(value)

    unique, summed = sum_duplicates(ids(*(i for i, _ in pairs)), np.array([[v] for _, v in pairs], F32))

    assert unique.tolist() == sorted(expected)
    assert summed[:, 0].tolist() == [expected[id_] for id_ in sorted(expected)]


def test_a_push_with_duplicates_equals_a_push_of_their_sum() -> None:
    one, two, g = InProcessTable(SETTINGS), InProcessTable(SETTINGS), grads(3)

    one.push(ids(8, 3, 8), g, step=0, read=None)
    two.push(ids(3, 8), np.stack([g[1], g[0] + g[2]]), step=0, read=None)

    assert np.array_equal(one.get(ids(3, 8)).vectors, two.get(ids(3, 8)).vectors)


def test_get_gives_each_duplicate_its_row_and_bears_nothing() -> None:
    table = InProcessTable(SETTINGS)
    table.push(ids(1), grads(1), step=0, read=None)

    rows = table.get(ids(1, 2, 1)).vectors

    assert np.array_equal(rows[0], rows[2])
    assert np.array_equal(rows[1:2], initial_rows(ids(2), SETTINGS))
    assert table.ids().tolist() == [1]


def test_rows_survive_growth_beyond_the_first_capacity() -> None:
    table, many = InProcessTable(SETTINGS), np.arange(3_000, dtype=np.uint64)
    table.push(many[:10], grads(10), step=0, read=None)
    before = table.get(many[:10]).vectors

    table.push(many[10:], grads(2_990), step=1, read=None)

    assert len(table) == 3_000
    assert np.array_equal(table.get(many[:10]).vectors, before)


def test_a_result_that_is_not_finite_leaves_the_row_alone_and_is_counted() -> None:
    table, bad = InProcessTable(SETTINGS), grads(2)
    bad[0, 0] = np.inf

    table.push(ids(1, 2), bad, step=0, read=None)

    assert table.ids().tolist() == [2]
    assert table.skipped == 1


def test_a_step_that_does_not_rise_is_refused() -> None:
    table = InProcessTable(SETTINGS)
    table.push(ids(1), grads(1), step=4, read=None)

    with pytest.raises(RepeatedStepError, match="step 4 after step 4"):
        table.push(ids(1), grads(1), step=4, read=None)


def test_gradients_of_another_shape_are_refused() -> None:
    with pytest.raises(InputError, match=r"expected \(2, 5\)"):
        InProcessTable(SETTINGS).push(ids(1, 2), grads(1), step=0, read=None)
