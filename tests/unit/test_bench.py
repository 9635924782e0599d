"""The bookkeeping of the benchmarks: reports, ratios, targets, tables; not their figures."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from bench import tables, tables_versions
from bench.harness import Effort, Report
from bench.hps import decode_values, encode_values
from bench.targets import SPEED, VERSIONS
from bench.versions import LAWS
from bench.versions_world import Plan, World
from bench.workload import Workload


def report() -> Report:
    return Report({"processor": "p", "cores": 2, "memory_gb": 4, "python": "3.11.0"}, {"numpy": "2"})


def test_each_repeat_runs_every_side_in_turn() -> None:
    ran: list[str] = []

    def side(name: str) -> float:
        ran.append(name)
        return 1.0

    report().measure("q", "rows/s", 2, {"a": lambda: side("a"), "b": lambda: side("b")})
    assert ran == ["a", "b", "a", "b"]


def test_a_ratio_is_the_median_over_the_repeats_not_the_quotient_of_medians() -> None:
    found = report()
    found.enter("q.ours", "rows/s", [10, 20, 90])
    found.enter("q.theirs", "rows/s", [10, 40, 30])
    found.ratio("r", "q.ours", "q.theirs")
    assert found.ratios["r"] == 1.0
    assert found.spread["r"] == [0.5, 3.0]


def test_a_report_is_read_as_it_was_written(tmp_path: Path) -> None:
    found = report()
    found.enter("q.ours", "rows/s", [10, 20])
    found.enter_ratio("r", [1.5])
    found.settings["q"] = {"steps": 7}
    found.write(tmp_path / "report.json")
    assert Report.read(tmp_path / "report.json") == found


def test_a_short_run_measures_at_least_one_of_everything() -> None:
    assert Effort(scale=0.001).scaled(5) == 1


@pytest.mark.parametrize("name", sorted(SPEED))
def test_every_target_has_its_line_in_the_tables(name: str) -> None:
    found = report()
    found.enter_ratio(name, [0.01])
    assert tables.MEANINGS[name] in tables.ratios(found)


def test_a_missed_target_says_so() -> None:
    found = report()
    found.enter_ratio("faust_vs_bare", [0.5])
    assert "0.50, missed" in tables.ratios(found)


@pytest.mark.parametrize("page", tables.PAGES, ids=lambda page: page.name)
def test_the_tables_of_the_docs_are_those_of_the_committed_report(page: Path) -> None:
    assert page.read_text() == tables.fill(page.read_text(), tables.stored())


def test_the_tables_on_versions_are_those_of_their_report() -> None:
    page = tables_versions.PAGE.read_text()
    assert page == tables.fill(page, tables_versions.stored(), tables_versions.TABLES)


@pytest.mark.parametrize("name", sorted(VERSIONS))
def test_every_target_of_versions_has_its_line(name: str) -> None:
    found = report()
    found.enter_ratio(name, [9.0])
    assert "missed" in tables_versions.ratios(found)


@pytest.mark.parametrize("law", LAWS)
def test_the_same_world_comes_again_and_its_steps_make_its_table(law: str) -> None:
    plan = Plan(rows=1000, versions=4, branch=1, law=law)
    world, again = World(plan), World(plan)
    rows = dict(enumerate(world.base().copy()))
    for step, other in zip(world.steps(), again.steps(), strict=True):
        assert np.array_equal(step.values, other.values)
        if step.branch == "main":
            rows |= dict(zip(step.ids.tolist(), step.values, strict=True))
            rows |= dict(zip(step.new_ids.tolist(), step.new_values, strict=True))
            for dead in step.dead.tolist():
                del rows[dead]
            assert sorted(rows) == world.ids().tolist()
            assert all(np.array_equal(rows[row], world.values[row]) for row in rows)


def test_the_same_workload_comes_again() -> None:
    load = Workload(rows=1000, dim=4, lookups=64)
    (first,), (again,) = list(load.steps(1)), list(load.steps(1))
    assert np.array_equal(first[0], again[0])
    assert np.array_equal(first[1], again[1])
    assert len(np.unique(first[0])) < len(first[0])


def test_a_message_of_values_gives_keys_and_vectors_back() -> None:
    ids, vectors = np.array([7, 42], np.uint64), np.arange(6, dtype=np.float32).reshape(2, 3)
    keys, raw = decode_values(encode_values(ids, vectors), 3)
    assert keys.tolist() == [7, 42]
    assert raw.tobytes() == vectors.tobytes()
