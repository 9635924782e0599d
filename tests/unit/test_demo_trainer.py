"""The trainer scores before it learns, its gradients are the loss's, and a seed fixes a run."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from driftline.demo.catalogue import UNSEEN, Catalogue, hardest, rank
from driftline.demo.inprocess import InProcessRows, InProcessTable
from driftline.demo.sources import synthetic
from driftline.demo.tables import Floats, Ids, Settings
from driftline.demo.trainer import Trainer, softmax_gradients

SMALL = Settings(dims=8, batch=16, negatives=8, hard_negatives=4, window=50, sweep=3)


def ids(*values: int) -> Ids:
    return np.array(values, np.uint64)


def scalar_loss(users: list[list[float]], items: list[list[float]], positives: list[int]) -> float:
    """The loss as the docstring states it, one number at a time."""
    loss = 0.0
    for user, positive in zip(users, positives, strict=True):
        scores = [sum(a * b for a, b in zip(user[:-1], item[:-1], strict=True)) + item[-1] for item in items]
        loss += math.log(sum(math.exp(score) for score in scores)) - scores[positive]
    return loss


@given(st.integers(0, 2**32 - 1))
@settings(deadline=None, max_examples=25)
def test_gradients_are_the_finite_differences_of_the_loss(seed: int) -> None:
    rng = np.random.default_rng(seed)
    users, items = rng.normal(size=(3, 4)).astype(np.float32), rng.normal(size=(5, 4)).astype(np.float32)
    positives = rng.integers(0, 5, 3)

    got = softmax_gradients(users, items, positives)

    def loss() -> float:
        return scalar_loss(wide[0].tolist(), wide[1].tolist(), positives.tolist())

    wide = [users.astype(np.float64), items.astype(np.float64)]
    assert got.loss == pytest.approx(loss(), rel=1e-4)
    for table, gradient in zip(wide, (got.users, got.items), strict=True):
        for at in np.ndindex(table.shape):
            here = table[at]
            table[at] = here + 1e-5
            up = loss()
            table[at] = here - 1e-5
            down = loss()
            table[at] = here
            assert gradient[at] == pytest.approx((up - down) / 2e-5, abs=2e-4)


def test_scores_too_large_for_exp_give_finite_gradients() -> None:
    users, items = np.full((2, 3), 1e3, np.float32), np.eye(3, dtype=np.float32) * 1e3

    got = softmax_gradients(users, items, np.array([0, 1]))

    assert np.isfinite(got.loss)
    assert np.isfinite(got.users).all()
    assert np.isfinite(got.items).all()


# --- ranking


def test_a_rank_counts_the_items_scored_no_worse() -> None:
    scores = np.array([[0.1, 0.9, 0.5], [3.0, 2.0, 1.0]], np.float32)

    got = rank(scores, np.array([0, 0, 1]), np.array([1, 0, 1]))

    assert got.ranks.tolist() == [1, 3, 2]


def test_ties_and_nan_count_against_the_item() -> None:
    assert rank(np.zeros((1, 50), np.float32), np.array([0]), np.array([7])).ranks.tolist() == [50]
    assert rank(np.full((1, 50), np.nan, np.float32), np.array([0]), np.array([7])).ranks.tolist() == [0]


def test_an_item_never_seen_is_not_scored() -> None:
    got = rank(np.zeros((1, 0), np.float32), np.array([0]), np.array([UNSEEN]))

    assert not got.scored.any()
    assert got.ranks.tolist() == [0]


@given(st.integers(1, 30), st.integers(0, 40), st.integers(0, 2**32 - 1))
def test_the_hardest_are_those_any_user_scores_highest(n: int, count: int, seed: int) -> None:
    scores = np.random.default_rng(seed).permutation(3 * n).reshape(3, n).astype(np.float32)

    expected = sorted(np.argsort(-scores.max(axis=0))[:count].tolist())

    assert hardest(scores, count).tolist() == expected


def test_a_catalogue_keeps_slots_and_vectors_while_it_grows() -> None:
    catalogue = Catalogue(2)
    for start in range(0, 5_000, 500):
        block = np.arange(start, start + 500, dtype=np.uint64)
        catalogue.add(block, np.repeat(block.astype(np.float32)[:, None], 2, axis=1))

    assert catalogue.find(ids(0, 4_999, 5_000)).tolist() == [0, 4_999, UNSEEN]
    assert catalogue.vectors[:, 0].tolist() == list(range(5_000))


# --- steps


class Watched:
    """A table that keeps a list of what was asked of it and refuses a position from another read."""

    def __init__(self, table: InProcessTable, log: list[str]) -> None:
        self.table, self.log = table, log
        self.reads = 0
        self.pushed: list[Ids] = []

    def get(self, ids: Ids) -> InProcessRows:
        self.log.append("get")
        self.reads = self.table.get(ids).read
        return self.table.get(ids)

    def push(self, ids: Ids, grads: Floats, *, step: int, read: object) -> None:
        assert read == self.reads
        self.log.append("push")
        self.pushed.append(ids)
        self.table.push(ids, grads, step=step, read=read)

    def flush(self) -> None:
        self.log.append("flush")


def tables() -> tuple[InProcessTable, InProcessTable]:
    return InProcessTable(SMALL.users()), InProcessTable(SMALL.items())


def test_nothing_is_scored_in_the_first_step_for_nothing_had_been_seen() -> None:
    step = Trainer(*tables(), SMALL).step(0, ids(1, 2), ids(5, 5))

    assert not step.scored.any()
    assert not step.hits.any()


def test_an_item_met_for_the_first_time_is_scored_only_from_the_next_step_on() -> None:
    trainer = Trainer(*tables(), SMALL)
    trainer.step(0, ids(1), ids(5))

    assert trainer.step(1, ids(1, 1), ids(6, 5)).scored.tolist() == [False, True]
    assert trainer.step(2, ids(1), ids(6)).scored.tolist() == [True]


def test_a_step_reads_everything_before_it_pushes_once_per_table() -> None:
    log: list[str] = []
    users, items = (Watched(table, log) for table in tables())
    trainer = Trainer(users, items, SMALL)
    for number in range(3):
        log.clear()
        trainer.step(number, ids(1, 2, 1), ids(5, 6, 7))
        assert log[-2:] == ["push", "push"]
        assert "push" not in log[:-2]
    assert users.pushed[-1].tolist() == [1, 2, 1]
    assert set(items.pushed[-1].tolist()) >= {5, 6, 7}


def test_scores_come_from_rows_as_read_after_the_last_push() -> None:
    users, items = tables()
    trainer = Trainer(users, items, SMALL)
    stream = synthetic(400, 0).events
    for number in range(20):
        part = stream[number * 16 : number * 16 + 16]
        trainer.step(number, part.users, part.items)
    trainer._refresh()

    assert np.array_equal(trainer.catalogue.vectors, items.get(trainer.catalogue.ids).vectors)


def test_the_sweep_finds_what_another_writer_changed() -> None:
    users, items = tables()
    trainer = Trainer(users, items, SMALL)
    for number in range(5):
        trainer.step(number, ids(1), ids(number))
    items.push(ids(0, 1, 2), np.ones((3, SMALL.dims), np.float32), step=1_000, read=None)

    for _ in range(2):  # 5 items, 3 a turn
        trainer._refresh()

    assert np.array_equal(trainer.catalogue.vectors, items.get(trainer.catalogue.ids).vectors)


def test_two_runs_with_one_seed_leave_the_same_bits_and_another_seed_others() -> None:
    def rows(seed: int) -> Floats:
        chosen = Settings(dims=8, batch=16, negatives=8, hard_negatives=4, seed=seed)
        users, items = InProcessTable(chosen.users()), InProcessTable(chosen.items())
        trainer, stream = Trainer(users, items, chosen), synthetic(320, 0).events
        for number in range(20):
            part = stream[number * 16 : number * 16 + 16]
            trainer.step(number, part.users, part.items)
        return items.get(trainer.catalogue.ids).vectors

    assert np.array_equal(rows(1), rows(1))
    assert not np.array_equal(rows(1), rows(2))


def test_the_unused_last_dimension_of_a_user_never_moves() -> None:
    users, items = tables()
    before = users.get(ids(1)).vectors[0, -1]
    trainer = Trainer(users, items, SMALL)
    for number in range(5):
        trainer.step(number, ids(1), ids(number))

    assert users.get(ids(1)).vectors[0, -1] == before


def test_the_loss_falls_on_a_stream_that_repeats_itself() -> None:
    trainer = Trainer(*tables(), SMALL)
    losses = [trainer.step(n, ids(1, 2, 3, 4), ids(11, 12, 13, 14)).loss for n in range(30)]

    assert losses[-1] < 0.25 * losses[0]
