from __future__ import annotations

import asyncio
from pathlib import Path

import numpy as np
import orjson
import pytest
from typer.testing import CliRunner

from driftline import topics
from driftline.cli.main import app
from driftline.drift import Change, Collector, JudgeSettings, Side, Standing, compare, replay
from driftline.drift.recorded import recorded_ticks
from driftline.drift.verdict import Rule
from driftline.errors import ConfigError, InputError, UnknownTableError
from driftline.frames.states import GRADIENT_CAUSE, TOMBSTONE, UPSERT_CAUSE, States, write_states
from driftline.graph import MOVED, PUT, GraphSettings, KnnGraph, Metric, snapshot_of
from driftline.log import Outgoing, open_log

ROWS, DIMS = 60, 4
GRAPH = GraphSettings(neighbours=5, metric=Metric.L2)
SETTINGS = JudgeSettings(ticks_per_day=24, least_ticks=20, settle_ticks=2, refit_ticks=10)


def states(ids: list[int], rows: np.ndarray, lsn: int, flags: int = int(GRADIENT_CAUSE)) -> States:
    n = len(ids)
    return States(
        "items",
        0,
        np.array(ids, np.uint64),
        np.arange(n, dtype=np.uint32),
        np.full(n, lsn, np.uint64),
        np.asarray(rows, np.float32).reshape(n, DIMS),
        np.empty((n, 0), np.float32),
        np.full(n, flags, np.uint8),
    )


def stream(ticks: int, seed: int = 0) -> list[Change]:
    rng = np.random.default_rng(seed)
    rows = rng.standard_normal((ROWS, DIMS)).astype(np.float32)
    ids = np.arange(ROWS, dtype=np.uint64)
    none = np.empty(0, np.uint64)
    told = [Change(ids, rows.copy(), np.full(ROWS, PUT), none)]
    for _ in range(ticks):
        moved = np.sort(rng.choice(ROWS, 30, replace=False))
        rows[moved] += 0.05 * rng.standard_normal((30, DIMS)).astype(np.float32)
        told.append(Change(ids[moved], rows[moved], np.full(30, MOVED), none))
    return told


def test_the_newest_state_of_each_row_is_kept_whatever_the_order() -> None:
    collector = Collector()
    collector.add(states([1, 2], np.ones((2, DIMS)), lsn=5))
    collector.add(states([1], np.full((1, DIMS), 9), lsn=4))
    collector.add(states([2], np.zeros((1, DIMS)), lsn=6, flags=int(TOMBSTONE)))
    collector.add(states([3], np.ones((1, DIMS)), lsn=6, flags=int(UPSERT_CAUSE)))
    change = collector.cut()
    assert change.ids.tolist() == [1, 3]
    assert change.vectors[0].tolist() == [1] * DIMS
    assert change.cause.tolist() == [MOVED, PUT]
    assert change.removed.tolist() == [2]
    collector.add(states([1], np.zeros((1, DIMS)), lsn=5))  # sent again after the cut
    assert not len(collector)


def test_a_replay_gives_the_same_verdicts_again() -> None:
    once = [each.verdict.to_json() for each in replay(stream(40), GRAPH, SETTINGS)]
    again = [each.verdict.to_json() for each in replay(stream(40), GRAPH, SETTINGS)]
    assert once == again
    assert len(once) == 40


def test_only_rows_moved_by_gradients_are_judged() -> None:
    changes = stream(2)
    changes[2] = Change(changes[2].ids, changes[2].vectors + 50, np.full(30, PUT), changes[2].removed)
    *_, last = replay(changes, GRAPH, SETTINGS)
    assert len(last.observation.ids) == 0
    assert last.verdict.standing is Standing.CALIBRATING


def test_rows_with_nan_stay_out_of_the_graph_and_wake_the_guard() -> None:
    changes = stream(2)
    changes[2].vectors[3, 1] = np.nan
    *_, last = replay(changes, GRAPH, SETTINGS)
    assert last.verdict.rule is Rule.GUARD
    assert last.verdict.nodes.tolist() == [int(changes[2].ids[3])]


def test_other_dimensions_in_the_middle_are_refused() -> None:
    changes = stream(1)
    changes[1] = Change(changes[1].ids, changes[1].vectors[:, :2], changes[1].cause, changes[1].removed)
    with pytest.raises(InputError, match="rows of 2 dimensions in a table of 4"):
        list(replay(changes, GRAPH, SETTINGS))


async def record(url: str, ticks: int) -> None:
    async with open_log(url) as log:
        await log.create_topic(topics.updates("items"), 2)
        for lsn, change in enumerate(stream(ticks), 1):
            for partition in (0, 1):
                mine = change.ids % np.uint64(2) == partition
                frame = write_states(states(change.ids[mine].tolist(), change.vectors[mine], lsn))
                await log.append(topics.updates("items"), partition, [Outgoing(frame)])


async def test_recorded_ticks_hold_every_row_once_and_in_order_of_time(tmp_path: Path) -> None:
    url = f"local://{tmp_path}/log"
    await record(url, 3)
    async with open_log(url) as log:
        found = [change async for change in recorded_ticks(log, "items", 0.001)]
        with pytest.raises(UnknownTableError, match="table 'users' has no updates topic"):
            _ = [change async for change in recorded_ticks(log, "users", 1.0)]
    assert set(np.concatenate([change.ids for change in found]).tolist()) == set(range(ROWS))
    numbers = [change.tick for change in found]
    assert numbers == sorted(set(numbers))  # type: ignore[type-var]
    last = stream(3)[-1]
    newest = {int(key): row for change in found for key, row in zip(change.ids, change.vectors, strict=True)}
    assert all(np.array_equal(newest[int(key)], row) for key, row in zip(last.ids, last.vectors, strict=True))


def test_the_command_judges_a_recorded_log_and_saves_the_calibration(tmp_path: Path) -> None:
    url = f"local://{tmp_path}/log"
    asyncio.run(record(url, 5))
    saved = tmp_path / "calibration"
    command = ["drift", "replay", "items", "--log-url", url, "--tick", "0.001", "--metric", "l2", "--json"]
    done = CliRunner().invoke(app, [*command, "--save", str(saved)])
    assert done.exit_code == 0, done.output
    answer = orjson.loads(done.stdout)
    assert answer["table"] == "items"
    assert answer["verdicts"]
    assert set(answer["standings"]) <= {"calibrating"}
    again = CliRunner().invoke(app, [*command, "--load", str(saved), "--freeze"])
    assert again.exit_code == 0, again.output


@pytest.mark.parametrize(
    ("given", "named"),
    [
        (["--metric", "manhattan"], "metric 'manhattan'"),
        (["--threshold", "jaccard"], "threshold 'jaccard'"),
        (["--threshold", "jaccard=7"], "threshold jaccard=7"),
        (["--tick", "0"], "tick=0"),
        (["--load", "/nowhere"], "calibration /nowhere"),
    ],
)
def test_a_wrong_option_is_refused_by_name(given: list[str], named: str) -> None:
    done = CliRunner().invoke(app, ["drift", "replay", "items", *given])
    assert isinstance(done.exception, ConfigError | InputError)
    assert named in str(done.exception)


def side(rows: np.ndarray) -> Side:
    ids = np.arange(len(rows), dtype=np.uint64)
    graph = KnnGraph(GRAPH).fit(ids, rows)
    return Side.of(snapshot_of(graph), rows)


def test_two_versions_are_compared_node_by_node_and_as_a_whole() -> None:
    rng = np.random.default_rng(0)
    old = rng.standard_normal((ROWS, DIMS)).astype(np.float32)
    new = old.copy()
    new[7] += 3
    found = compare(side(old), side(new))
    assert found.ids[found.moved].tolist() == [7]
    assert found.measures["offset_distance"][7] == pytest.approx(6, rel=0.05)
    assert found.measures["offset_distance"][~found.moved].max() == 0
    assert (found.whole.moved, found.whole.added, found.whole.removed) == (1, 0, 0)
    assert found.totals()["offset_distance"]["mean"] == pytest.approx(6, rel=0.05)


def test_a_turned_version_has_no_offsets() -> None:
    rng = np.random.default_rng(0)
    old = rng.standard_normal((ROWS, DIMS)).astype(np.float32)
    turn = np.linalg.qr(rng.standard_normal((DIMS, DIMS)))[0]
    found = compare(side(old), side((old @ turn).astype(np.float32)))
    assert found.measures["offset_distance"].max() == pytest.approx(0, abs=1e-4)
    assert found.measures["jaccard"].min() == 1
    assert found.whole.rotation_angle > 0.1
    assert found.whole.linear_cka == pytest.approx(1, abs=1e-6)


def test_equal_versions_do_not_differ() -> None:
    rows = np.random.default_rng(0).standard_normal((ROWS, DIMS)).astype(np.float32)
    found = compare(side(rows), side(rows))
    assert found.whole.moved == 0
    assert found.totals() == {}


def test_versions_of_other_dimensions_are_not_compared() -> None:
    rows = np.random.default_rng(0).standard_normal((ROWS, DIMS)).astype(np.float32)
    with pytest.raises(InputError, match="4 and 3 dimensions"):
        compare(side(rows), side(rows[:, :3]))
