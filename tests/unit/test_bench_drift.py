"""The bookkeeping of the benchmarks of graph and alarm: what the page says is what was measured."""

from __future__ import annotations

from copy import deepcopy
from pathlib import Path

import pytest

from bench import drift, drift_pictures, drift_tables
from bench.alarm_world import Fault, Training, World
from bench.drift_world import Plan
from bench.harness import Report
from bench.targets import GRAPH


def report() -> Report:
    return Report({"processor": "p", "cores": 2, "memory_gb": 4, "python": "3.11.0"}, {"numpy": "2"})


def test_the_page_has_the_tables_of_the_committed_reports() -> None:
    page = drift_tables.PAGE.read_text()
    assert page == drift_tables.fill(page)


def test_the_pictures_are_drawn_from_the_committed_reports() -> None:
    for name, content in drift_pictures.drawn().items():
        assert (drift_pictures.IMAGES / name).read_text() == content


@pytest.mark.parametrize("name", sorted(GRAPH))
def test_every_target_has_its_line(name: str) -> None:
    found = report()
    found.enter_ratio(name, [1.0])
    assert drift_tables.RATIOS[name] in drift_tables.ratios(found)


def test_a_missed_target_says_so() -> None:
    found = report()
    found.enter_ratio("memory_factor", [3.0])
    assert "3, missed" in drift_tables.ratios(found)


def test_an_answer_that_is_kept_is_not_asked_for_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BENCH_PARTS", str(tmp_path))
    asked: list[str] = []

    def called(function: str, _: object) -> dict[str, float]:
        asked.append(function)
        return {"us_per_row": 1.0}

    monkeypatch.setattr(drift, "_called", called)
    plan = Plan(50_000, "l2", 500, False, 10, 5)
    assert drift._kept("g2", plan) == drift._kept("g2", plan) == {"us_per_row": 1.0}
    assert asked == ["run_side"]


def test_training_goes_on_from_a_copy_as_it_would_have_and_a_fault_changes_what_comes_after_it() -> None:
    training = Training(World("steady", 60.0), 1)
    for _ in range(5):
        training.step()
    copy, hit = deepcopy(training), deepcopy(training)
    healthy = training.step().measures["relative_offset"]
    assert (copy.step().measures["relative_offset"] == healthy).all()
    assert (hit.step(Fault("bad_push", 5, 8.0)).measures["relative_offset"] > 5 * healthy).all()
