"""The parts of the judge, each against its definition or its promise."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from driftline.drift import GuardSettings, JudgeSettings, Thresholds, centring, cusum
from driftline.drift.conformal import TAIL, Tails, benjamini_hochberg
from driftline.drift.evalue import power_mixture, shiryaev_roberts
from driftline.drift.measures import NODE_MEASURES
from driftline.errors import ConfigError


@pytest.mark.parametrize(
    ("limits", "named"),
    [
        ({"jaccard": 1.5}, "threshold jaccard=1.5: must be finite and from 0 to 1"),
        ({"change_ratio": -0.1}, "threshold change_ratio=-0.1"),
        ({"offset_direction": 4}, "threshold offset_direction=4"),
        ({"offset_distance": float("nan")}, "threshold offset_distance=nan"),
        ({"norm_ratio": float("inf")}, "threshold norm_ratio=inf"),
        ({"jacard": 0.5}, "threshold 'jacard': no such measure; known: change_quantity"),
    ],
)
def test_a_threshold_out_of_range_is_refused_by_name(limits: dict[str, float], named: str) -> None:
    with pytest.raises(ConfigError, match=named.replace("(", "\\(")):
        Thresholds(limits)


@pytest.mark.parametrize(
    "bad",
    [
        {"false_actions_per_day": 0.0},
        {"false_actions_per_day": 2000.0},
        {"ticks_per_day": -1.0},
        {"least_ticks": 3},
        {"least_effect": 0.5},
        {"least_loss": 2.0},
        {"few_nodes": -1},
        {"window_days": float("inf")},
    ],
)
def test_a_setting_out_of_range_is_refused_by_name(bad: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match=next(iter(bad))):
        JudgeSettings(**bad)  # type: ignore[arg-type]


def test_a_node_over_any_threshold_deviates_and_similarities_deviate_below() -> None:
    limits = Thresholds({"jaccard": 0.4, "offset_distance": 2.0})
    measures = {
        "jaccard": np.array([0.5, 0.3, 0.5, np.nan, 0.4]),
        "offset_distance": np.array([1.0, 1.0, 3.0, np.nan, 2.0]),
    }
    assert limits.over(measures).tolist() == [False, True, True, False, False]


def test_a_threshold_on_a_measure_that_was_not_taken_is_refused() -> None:
    with pytest.raises(ConfigError, match="threshold norm_ratio: that measure was not taken"):
        Thresholds({"norm_ratio": 2}).over({"jaccard": np.ones(1)})


def test_every_measure_takes_a_threshold() -> None:
    Thresholds({measure.name: 0.5 for measure in NODE_MEASURES})


@given(
    st.lists(st.tuples(st.integers(0, 2), st.floats(0, 9, width=16)), max_size=40),
    st.lists(st.tuples(st.integers(0, 2), st.floats(0, 9, width=16)), min_size=1, max_size=10),
)
def test_conformal_p_values_count_the_scores_at_least_as_large(
    known: list[tuple[int, float]], asked: list[tuple[int, float]]
) -> None:
    tails = Tails.empty(3)
    for start in range(0, len(known), 7):
        part = known[start : start + 7]
        tails = tails.with_scores(np.array([a for a, _ in part]), np.array([b for _, b in part]))
    found = tails.p_values(np.array([a for a, _ in asked]), np.array([b for _, b in asked]))
    for (stratum, score), p in zip(asked, found.tolist(), strict=True):
        same = [b for a, b in known if a == stratum]
        assert p == pytest.approx((1 + sum(b >= score for b in same)) / (len(same) + 1))


def test_below_the_kept_tail_p_errs_to_the_safe_side() -> None:
    scores = np.arange(3 * TAIL, dtype=np.float64)
    tails = Tails.empty(1).with_scores(np.zeros(len(scores), np.int64), scores)
    p = tails.p_values(np.zeros(2, np.int64), np.array([3 * TAIL - 10.0, 5.0]))
    assert p.tolist() == [pytest.approx(11 / (3 * TAIL + 1)), 1.0]


def test_conformal_p_values_of_healthy_nodes_are_super_uniform() -> None:
    rng = np.random.default_rng(0)
    found = []
    for _ in range(400):
        tails = Tails.empty(1).with_scores(np.zeros(99, np.int64), rng.standard_normal(99))
        found.append(tails.p_values(np.zeros(5, np.int64), rng.standard_normal(5)))
    p = np.concatenate(found)
    for level in (0.01, 0.05, 0.2, 0.5):
        assert (p <= level).mean() <= level + 4 * np.sqrt(level / len(p))


@given(st.lists(st.floats(0.001, 1), max_size=12), st.floats(0.01, 0.5))
def test_benjamini_hochberg_follows_its_definition(p: list[float], level: float) -> None:
    order = sorted(p)
    passing = [k for k in range(1, len(p) + 1) if order[k - 1] <= level * k / len(p)]
    limit = order[passing[-1] - 1] if passing else -1
    assert benjamini_hochberg(np.array(p), level).tolist() == [each <= limit for each in p]


def test_an_e_value_of_a_uniform_p_has_mean_one() -> None:
    p = (np.arange(1_000_000) + 0.5) / 1_000_000
    assert power_mixture(p).mean() == pytest.approx(1, abs=0.06)  # the finest p are missing from the sum
    assert power_mixture(p).mean() <= 1
    assert np.all(np.diff(power_mixture(p)) < 0)


def test_the_detector_alarms_no_more_often_than_its_threshold_says() -> None:
    rng = np.random.default_rng(0)
    threshold, ticks = 500.0, 200_000
    each = power_mixture(rng.random((ticks, 5)))
    r, alarms = np.zeros(5), 0
    for e in each:
        r = shiryaev_roberts(r, e)
        if r.mean() >= threshold:
            alarms, r = alarms + 1, np.zeros(5)
    assert alarms <= ticks / threshold


def test_the_cusum_warns_about_as_often_as_it_is_set_to() -> None:
    rng = np.random.default_rng(1)
    level = cusum.level(rng.standard_normal(40_000), 500)
    height, warnings = 0.0, 0
    for residual in rng.standard_normal(40_000).tolist():
        height = cusum.advance(height, residual)
        if height > level:
            height, warnings = 0.0, warnings + 1
    assert 30 <= warnings <= 200  # 80 expected


def test_centring_takes_out_time_of_day_and_autocorrelation() -> None:
    rng = np.random.default_rng(0)
    period, days = 96, 21
    ticks = np.arange(period * days)
    wander = np.zeros(len(ticks))
    for at in range(1, len(ticks)):
        wander[at] = 0.7 * wander[at - 1] + rng.standard_normal()
    values = 5 + 3 * np.sin(2 * np.pi * ticks / period) + wander
    fit, residuals = centring.fit(ticks, values, period)
    assert fit.phi == pytest.approx(0.7, abs=0.1)
    assert abs(np.median(residuals)) < 0.1
    assert abs(np.corrcoef(residuals[1:], residuals[:-1])[0, 1]) < 0.15
    assert abs(np.corrcoef(residuals, np.sin(2 * np.pi * ticks / period))[0, 1]) < 0.05
    before = fit.standing(int(ticks[-2]), float(values[-2]))
    now = fit.standing(int(ticks[-1]), float(values[-1]))
    assert fit.residual(now, before) == pytest.approx(residuals[-1])


def test_a_constant_statistic_has_finite_residuals() -> None:
    fit, residuals = centring.fit(np.arange(200), np.zeros(200), 1440)
    assert np.all(residuals == 0)
    assert np.isfinite(fit.residual(fit.standing(201, 1.0), 0.0))


def test_hard_limits_of_the_guard_are_settings() -> None:
    assert GuardSettings(largest_norm=3).largest_norm == 3
