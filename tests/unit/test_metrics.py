"""The list of metrics, and how Prometheus reads it."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from driftline import metrics
from driftline.config.reference import fill
from driftline.metrics import METRICS, Kind, Metric, Sample, SampleCollector, ShardFigures, shard_samples

DOCS = Path(__file__).parents[2] / "docs" / "reference"
LABELS = ("table", "shard", "reason")
FIGURES = ShardFigures(
    end_offset=110,
    committed_offset=100,
    published_offset=90,
    committed_time=1000.0,
    frames=7,
    dead_letters={"dims": 2, "forged": 1},
    commit_seconds=0.25,
)


def scrape(samples: Iterable[Sample]) -> dict[tuple[str, tuple[str, ...]], float]:
    """What a Prometheus server would store: (name, label values) -> value."""
    registry = CollectorRegistry()
    registry.register(SampleCollector(lambda: samples))
    families = text_string_to_metric_families(generate_latest(registry).decode())
    return {
        (each.name, tuple(each.labels[name] for name in LABELS if name in each.labels)): each.value
        for family in families
        for each in family.samples
    }


@pytest.mark.parametrize("metric", METRICS, ids=lambda metric: metric.name)
def test_names_follow_the_conventions(metric: Metric) -> None:
    assert re.fullmatch(r"driftline_[a-z]+(_[a-z]+)*", metric.name)
    assert metric.name.endswith("_total") == (metric.kind is Kind.COUNTER)
    assert metric.help.endswith(".")
    units = (
        "records",
        "seconds",
        "offset",
        "rows",
        "bytes",
        "shards",
        "frames",
        "commits",
        "ops",
        "restores",
        "ticks",
        "verdicts",
        "alarms",
        "recoveries",
        "letters",
        "versions",
        "cuts",
        "backups",
        "barriers",
        "rollbacks",
        "updates",
        "losses",
    )
    assert metric.name.removesuffix("_total").endswith(units)


def test_names_are_used_once() -> None:
    assert len({metric.name for metric in METRICS}) == len(METRICS)


def test_every_metric_that_the_module_defines_is_in_the_list() -> None:
    assert {value for value in vars(metrics).values() if isinstance(value, Metric)} == set(METRICS)


def test_a_shard_gives_every_metric_but_those_of_the_worker() -> None:
    given = {sample.metric for sample in shard_samples("users", 3, FIGURES, now=1005.0)}
    of_worker = {each for each in METRICS if each.name.startswith("driftline_ingest_")}
    of_worker |= set(METRICS[METRICS.index(metrics.VERSIONS) :])  # the versioner's come last
    assert given == set(METRICS) - of_worker - {
        metrics.OWNED_SHARDS,
        metrics.FENCE_LOSSES,
        metrics.OPS_REFUSED,
    }


def test_prometheus_reads_the_figures_of_a_shard() -> None:
    read = scrape(shard_samples("users", 3, FIGURES, now=1005.0))
    shard = ("users", "3")
    assert read["driftline_lag_records", shard] == 10
    assert read["driftline_watermark_age_seconds", shard] == 5.0
    assert read["driftline_frames_total", shard] == 7
    assert read["driftline_commit_seconds_total", shard] == 0.25
    assert read["driftline_dead_letters_total", (*shard, "forged")] == 1


def test_prometheus_reads_label_values_of_any_kind() -> None:
    name = 'a"b\\c\nd'
    assert scrape([metrics.OWNED_SHARDS.sample(2, name)]) == {("driftline_owned_shards", (name,)): 2.0}


@given(end=st.integers(0, 50), committed=st.integers(0, 50), now=st.floats(0, 100), time=st.floats(0, 100))
def test_age_is_never_negative_and_is_zero_without_lag(
    end: int, committed: int, now: float, time: float
) -> None:
    records = metrics.lag(end, committed)
    age = metrics.watermark_age(now, time, records)
    assert records >= 0
    assert age >= 0
    assert records or age == 0


def test_a_shard_that_has_committed_nothing_has_no_age() -> None:
    assert metrics.watermark_age(now=1e9, committed_time=0.0, records=5) == 0.0


def test_registering_reads_nothing() -> None:
    def read() -> Iterable[Sample]:
        raise AssertionError("read at registration")

    CollectorRegistry().register(SampleCollector(read))


def test_each_scrape_reads_anew() -> None:
    owned = 0
    registry = CollectorRegistry()
    registry.register(SampleCollector(lambda: [metrics.OWNED_SHARDS.sample(owned, "users")]))
    for owned in (1, 2):
        assert registry.get_sample_value("driftline_owned_shards", {"table": "users"}) == owned


def test_a_sample_needs_one_value_per_label() -> None:
    with pytest.raises(ValueError, match="driftline_lag_records has the labels"):
        metrics.LAG.sample(1, "users")


def test_a_series_given_twice_is_refused() -> None:
    with pytest.raises(ValueError, match="driftline_lag_records has two values"):
        scrape([metrics.LAG.sample(1, "users", 0), metrics.LAG.sample(2, "users", 0)])


def test_the_page_lists_what_there_is() -> None:
    page = (DOCS / "metrics.md").read_text("utf-8")
    assert fill(page) == page, "run: python -m driftline.config.reference docs/reference/metrics.md"
    assert all(f"| `{metric.name}` |" in page for metric in METRICS)
