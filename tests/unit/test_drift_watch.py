"""A table's watch: same ticks, same verdicts; also from a checkpoint, and within its memory."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from driftline.drift import JudgeSettings, dump_state, load_state
from driftline.errors import InputError
from driftline.graph import GraphSettings, Metric
from driftline_services.drift_monitor import checkpoint
from driftline_services.drift_monitor.gathering import Gathered, ShardFollow
from driftline_services.drift_monitor.producers import Figures
from driftline_services.drift_monitor.watch import Scope, TableWatch

DIM = 4
SETTINGS = JudgeSettings(least_ticks=20, settle_ticks=2, cool_ticks=3, ticks_per_day=24.0)
SCOPE = Scope("t", (0,), 1, "me")


def watch(limit: int = 10_000) -> TableWatch:
    return TableWatch(SCOPE, DIM, GraphSettings(metric=Metric.L2), SETTINGS, limit)


class World:
    """Rows that move a little in each tick."""

    def __init__(self, rows: int = 200) -> None:
        self.rng = np.random.default_rng(3)
        self.ids = np.arange(1, rows + 1, dtype=np.uint64)
        self.rows = self.rng.normal(size=(rows, DIM)).astype(np.float32)

    def tick(self, scale: float = 0.02, *, by_gradient: bool = True, times: int = 1) -> Gathered:
        for _ in range(times):
            self.rows = self.rows + self.rng.normal(scale=scale, size=self.rows.shape).astype(np.float32)
        count = len(self.ids)
        return Gathered(
            self.ids, self.rows.copy(), np.zeros(count, np.bool_), np.full(count, by_gradient, np.bool_)
        )


def judged(one: TableWatch, op: int, found: Gathered, updates: int = 1) -> tuple[str, str, int]:
    sent = {"aa": Figures(updates * len(found.ids), 1.0, 1.0)}
    verdict = one.tick(op, 0, found, sent, whole=True, complete=True)
    return verdict.standing, verdict.action, verdict.clean


def calibrated(world: World, one: TableWatch, ticks: int = 36) -> int:
    for op in range(1, ticks + 1):
        assert judged(one, op, world.tick())[1] == "none"
    return ticks


def test_a_bad_tick_is_told_with_the_barrier_before_its_onset() -> None:
    world, one = World(), watch()
    op = calibrated(world, one)
    assert judged(one, op + 1, world.tick(1.0)) == ("alarm", "full_rollback", op)


def test_what_was_put_is_not_judged() -> None:
    world, one = World(), watch()
    op = calibrated(world, one)
    assert judged(one, op + 1, world.tick(1.0, by_gradient=False))[1] == "none"


def test_rows_whose_neighbours_were_put_elsewhere_are_not_judged_by_that() -> None:
    world, one = World(), watch()
    op = calibrated(world, one)
    found = world.tick()
    put = np.arange(len(world.ids)) % 2 == 0
    world.rows[put] = world.rng.normal(scale=3.0, size=(int(put.sum()), DIM))
    found = Gathered(found.ids, world.rows.copy(), found.dead, ~put)
    assert judged(one, op + 1, found)[1] == "none"
    assert judged(one, op + 2, world.tick())[0] == "calibrating"  # it is another table now


def test_a_tick_with_more_updates_per_row_is_no_worse() -> None:
    world, one = World(), watch()
    op = calibrated(world, one)
    assert judged(one, op + 1, world.tick(times=30), updates=30)[1] == "none"


def test_from_a_checkpoint_the_same_ticks_give_the_same_verdicts(tmp_path: Path) -> None:
    world, one = World(), watch()
    op = calibrated(world, one, 30)
    path = checkpoint.path_of(tmp_path, "g", "t", (0,))
    checkpoint.write(path, one, {0: checkpoint.Stand(7, 8, op)})
    saved = checkpoint.read(path, (0,), DIM)
    assert saved is not None
    other, follow = watch(), ShardFollow("t", 0, DIM)
    checkpoint.enter(saved, other, {0: follow})
    assert (follow.position, follow.floor, follow.last_op) == (7, 8, op)
    for number in range(op + 1, op + 9):
        found = world.tick(1.0 if number == op + 8 else 0.02)
        sent = {"aa": Figures(len(found.ids), 1.0, 1.0)}
        verdicts = [each.tick(number, 0, found, sent, whole=True, complete=True) for each in (one, other)]
        assert verdicts[0] == verdicts[1]
    assert dump_state(one.state) == dump_state(other.state)


def test_a_damaged_checkpoint_is_refused_by_name(tmp_path: Path) -> None:
    path = tmp_path / "t-0.npz"
    path.write_bytes(b"nothing of the kind")
    with pytest.raises(InputError, match=r"t-0\.npz"):
        checkpoint.read(path, (0,), DIM)
    with pytest.raises(InputError):
        load_state(b"nothing of the kind")


def test_beyond_its_limit_a_part_of_the_rows_is_watched() -> None:
    world, one = World(800), watch(limit=300)
    for op in range(1, 5):
        judged(one, op, world.tick())
    assert 0 < len(one.rows) <= 300
    assert len(one.rows) == len(one.graph)


def test_an_incomplete_tick_is_not_judged() -> None:
    world, one = World(), watch()
    op = calibrated(world, one)
    verdict = one.tick(op + 1, 0, world.tick(1.0), {}, whole=False, complete=False)
    assert (verdict.standing, verdict.action) == ("incomplete", "none")


@pytest.mark.parametrize(("dims", "neighbours"), [(8, 10), (32, 20)])
def test_a_row_takes_the_memory_that_the_page_says(dims: int, neighbours: int) -> None:
    graph = GraphSettings(metric=Metric.L2, neighbours=neighbours)
    one = TableWatch(SCOPE, dims, graph, SETTINGS, 10_000)
    rows = np.random.default_rng(0).normal(size=(500, dims)).astype(np.float32)
    one.stand_on(np.arange(500, dtype=np.uint64), rows)
    assert one.nbytes == 500 * (8 * dims + 16 * neighbours + 61)
