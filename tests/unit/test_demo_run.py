"""A whole run in process: what it reports, how it ends, and that it beats the baselines."""

from __future__ import annotations

import io
import json

import numpy as np
import pytest
from rich.console import Console

from driftline.demo.inprocess import InProcessTable
from driftline.demo.measures import Hits
from driftline.demo.progress import ProgressView, line
from driftline.demo.run import Health, Hooks, Progress, run
from driftline.demo.sources import synthetic
from driftline.demo.summary import Audit, render, summarise
from driftline.demo.tables import Settings

SETTINGS = Settings(dims=8, batch=32, negatives=16, hard_negatives=16)


def run_small(events: int = 1_000, hooks: Hooks | None = None) -> list[Progress]:
    seen: list[Progress] = []
    run(
        synthetic(events, 0).events,
        InProcessTable(SETTINGS.users()),
        InProcessTable(SETTINGS.items()),
        SETTINGS,
        seen.append,
        hooks=hooks or Hooks(),
        now=iter(range(10_000)).__next__,
        report_every=10,
    )
    return seen


def flags(*values: int) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
    return np.array(values, bool)


# --- measures


def test_recall_counts_only_scored_events_beyond_the_warm_up() -> None:
    hits = Hits(6, warm_up=2)
    hits.record(flags(1, 1, 1), flags(1, 1, 0), flags(0, 0, 1), flags(0, 0, 0))
    hits.record(flags(0, 1, 1), flags(0, 1, 1), flags(0, 0, 0), flags(0, 0, 1))

    overall = hits.overall()

    assert overall.events == 3
    assert (overall.model, overall.popularity, overall.recency) == (2 / 3, 1 / 3, 1 / 3)


def test_rolling_recall_looks_at_the_last_events_only() -> None:
    hits = Hits(4, warm_up=0)
    hits.record(flags(1, 1, 1, 1), flags(0, 0, 1, 1), flags(1, 1, 0, 0), flags(0, 0, 0, 1))

    assert hits.rolling(2).model == 1.0
    assert hits.rolling(100) == hits.overall()


def test_recall_over_no_events_is_unknown_not_zero() -> None:
    assert Hits(4, warm_up=0).overall().model is None


# --- run


def test_progress_is_reported_every_so_many_steps_and_at_the_end() -> None:
    assert [p.steps for p in run_small(1_000)] == [10, 20, 30, 32]
    assert [p.events for p in run_small(1_000)][-1] == 1_000


def test_every_step_is_announced_to_the_probe_after_its_push() -> None:
    steps: list[int] = []
    run_small(200, Hooks(after_push=steps.append))

    assert steps == list(range(7))


def test_a_run_that_is_stopped_ends_in_order_with_what_it_had() -> None:
    answers = iter([False] * 5 + [True])
    end = run_small(1_000, Hooks(stop=lambda: next(answers)))[-1]

    assert (end.steps, end.events, end.total) == (5, 160, 1_000)


def test_the_health_of_the_pipeline_is_part_of_every_report() -> None:
    health = Health(freshness_p50_ms=12.0, freshness_p99_ms=40.0, lag=3)

    assert all(p.health == health for p in run_small(400, Hooks(health=lambda: health)))


def test_the_model_clearly_beats_both_baselines_on_the_planted_stream() -> None:
    settings, stream = Settings(), synthetic(12_000, 0)
    end = run(
        stream.events,
        InProcessTable(settings.users()),
        InProcessTable(settings.items()),
        settings,
        lambda _: None,
    )

    recall = end.overall
    assert recall.model is not None
    assert recall.popularity is not None
    assert recall.recency is not None
    assert recall.model > 1.1 * recall.recency
    assert recall.model > 2 * recall.popularity
    assert recall.model < stream.ceiling(settings.warm_up)


# --- summary and progress


def test_the_summary_has_stable_keys_and_null_for_what_was_not_measured() -> None:
    summary = summarise(run_small()[-1], SETTINGS, source="synthetic")

    data = json.loads(summary.to_json())

    assert set(data) == {
        "source", "seed", "dims", "steps", "events", "scored_events", "seconds", "gradient_rows",
        "rows_per_s", "freshness_ms", "recall_at_20", "baselines", "recall_ceiling", "audit", "audit_detail",
        "versions", "backups", "verdicts", "rollbacks", "faults",
    }  # fmt: skip
    assert set(data["baselines"]) == {"popularity", "recency"}
    assert data["freshness_ms"] == {"p50": None, "p99": None}
    assert data["audit"] is None
    assert data["events"] == 1_000


def test_a_summary_of_another_depth_is_refused() -> None:
    with pytest.raises(ValueError, match="k = 10"):
        summarise(run_small()[-1], Settings(k=10), source="synthetic")


def test_the_table_shows_the_verdict_of_the_audit() -> None:
    audit = Audit(ok=True, detail="1,204 rows equal the replayed log")
    console = Console(file=io.StringIO(), width=100)

    console.print(render(summarise(run_small()[-1], SETTINGS, source="synthetic", audit=audit)))

    text = console.file.getvalue()  # type: ignore[attr-defined]
    assert "1,204 rows equal the replayed log" in text
    assert "recall@20" in text


def test_without_a_terminal_progress_is_plain_lines_a_while_apart_and_the_last_one() -> None:
    out = io.StringIO()
    reports = run_small()
    with ProgressView(Console(file=out, width=40), every_seconds=2.0) as view:
        for progress in reports:
            view.update(progress)

    lines = out.getvalue().splitlines()
    assert lines == [line(reports[i]) for i in (0, 2, 3)]
    assert "\x1b" not in out.getvalue()


def test_on_a_terminal_progress_is_a_live_block() -> None:
    out = io.StringIO()
    with ProgressView(Console(file=out, force_terminal=True, width=100)) as view:
        view.update(run_small()[-1])

    assert "recall@20 now" in out.getvalue()
