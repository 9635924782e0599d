"""The judge: (state, tick) → (state, verdict).

Invariant: pure and deterministic; a recorded stream of observations gives the same verdicts again.
Nothing is called OK that was not judged: too little history is CALIBRATING, a graph of low recall
DEGRADED. Calibration learns only from ticks that `settle_ticks` further ticks did not put in doubt.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from driftline.drift import cusum
from driftline.drift.calibration import Calibration, Settled
from driftline.drift.evalue import power_mixture, shiryaev_roberts
from driftline.drift.guard import guard
from driftline.drift.measures.base import Doubles, Ids
from driftline.drift.nodes import Deviation, deviating
from driftline.drift.observation import Observation
from driftline.drift.scores import CHANNELS, Scores, scores_of, statistics_of
from driftline.drift.settings import JudgeSettings
from driftline.drift.verdict import Action, Channel, Evidence, Rule, Standing, Verdict
from driftline.errors import InputError

NEVER = np.int64(-1)


@dataclass(frozen=True, slots=True, eq=False)
class JudgeState:
    """All that the judge carries from tick to tick."""

    calibration: Calibration = field(default_factory=Calibration)
    pending: tuple[Settled, ...] = ()  # oldest first
    tick: int | None = None  # the last one judged
    standing: Doubles | None = None  # of its channels, centred; None if it had no statistics
    r: Doubles = field(default_factory=lambda: np.zeros(len(CHANNELS)))  # Shiryaev–Roberts per channel
    # CUSUM of log e per channel: where it was last 0, the trouble is thought to begin.
    heights: Doubles = field(default_factory=lambda: np.zeros(len(CHANNELS)))
    onsets: NDArray[np.int64] = field(default_factory=lambda: np.full(len(CHANNELS), NEVER))
    cusums: Doubles = field(default_factory=lambda: np.zeros(len(CHANNELS)))
    cool: int = 0  # ticks


@dataclass(frozen=True, slots=True, eq=False)
class _Detector:
    """The tick detector after a tick."""

    standing: Doubles | None
    r: Doubles
    heights: Doubles
    onsets: NDArray[np.int64]
    cusums: Doubles
    channels: tuple[Channel, ...]
    warns: bool

    @property
    def score(self) -> float:
        """The mean over the channels is again such a statistic, and costs one that speaks log 5 once.

        Averaging their e-values first would cost it log 5 in every tick.
        """
        return float(self.r.mean())

    @property
    def onset(self) -> int | None:
        """Where the loudest channel's trouble is thought to begin."""
        found = int(self.onsets[int(np.argmax(self.r))])
        return None if found == NEVER else found


def judge(state: JudgeState, seen: Observation, settings: JudgeSettings) -> tuple[JudgeState, Verdict]:
    """Judge one tick.

    Raises InputError for a tick that is not beyond the last one.
    """
    if state.tick is not None and seen.tick <= state.tick:
        raise InputError(f"tick {seen.tick} after tick {state.tick}: ticks count up")
    if not seen.complete:
        return state, _verdict(state, seen, settings, Standing.INCOMPLETE, why="partitions are missing")
    alarm = guard(seen, settings.guard)
    if alarm is not None:
        verdict = _verdict(
            state,
            seen,
            settings,
            Standing.ALARM,
            rule=Rule.GUARD,
            action=Action.FULL_ROLLBACK,
            nodes=np.sort(alarm.ids),
            onset=seen.tick,
            why=alarm.why,
        )
        return _doubted(state, seen.tick, settings), verdict
    if seen.degraded:
        why = "the graph's recall is below its floor"
        skipped = replace(state, tick=seen.tick, standing=None)
        return skipped, _verdict(state, seen, settings, Standing.DEGRADED, why=why)
    if state.cool:
        cooled = replace(state, tick=seen.tick, standing=None, cool=state.cool - 1)
        return cooled, _verdict(state, seen, settings, Standing.COOLING, why=f"{state.cool} ticks to go")
    return _judged(state, seen, settings)


def rolled_back(state: JudgeState, settings: JudgeSettings) -> JudgeState:
    """Return the state after a rollback: what was pending is forgotten, and the judge cools down."""
    return replace(_doubted(state, state.tick, settings), tick=state.tick)


def accepted(state: JudgeState) -> JudgeState:
    """Return the state after a person called the new regime healthy: calibration begins anew."""
    return JudgeState(tick=state.tick)


def _judged(state: JudgeState, seen: Observation, settings: JudgeSettings) -> tuple[JudgeState, Verdict]:
    known = state.calibration
    scores = scores_of(seen)
    statistics = statistics_of(seen, scores, known.curve)
    detector = _detect(state, seen, statistics, len(scores.nodes))
    found = deviating(scores, known, settings)
    if settings.thresholds.limits:
        over = settings.thresholds.over(seen.measures) & (seen.updates >= settings.threshold_after)
        nodes, node_rule = seen.ids[over], Rule.THRESHOLDS
        bad = np.isin(seen.ids[scores.nodes], nodes)
    else:
        nodes, node_rule = seen.ids[scores.nodes[found.nodes]], Rule.CONFORMAL
        bad = np.zeros(len(scores.nodes), np.bool_)
        bad[found.nodes] = True
    nodes = np.sort(nodes)
    standing, rule, action = _decide(len(nodes), node_rule, detector, found, known, scores, settings)
    onset = detector.onset if rule is Rule.DETECTOR else seen.tick if len(nodes) else None
    if rule is Rule.CUSUM:
        onset = detector.onset
    evidence = _evidence(settings, known, scores, len(nodes), found, detector)
    verdict = Verdict(seen.tick, standing, rule, action, nodes, onset, evidence)
    if action is Action.FULL_ROLLBACK:
        return _doubted(state, seen.tick, settings), verdict
    settled = Settled(seen.tick, len(scores.nodes), statistics, _without(scores, bad))
    pending = (*state.pending, settled)
    while len(pending) > settings.settle_ticks:
        known, pending = known.with_tick(pending[0], settings), pending[1:]
    after = JudgeState(
        known,
        pending,
        seen.tick,
        detector.standing,
        detector.r,
        detector.heights,
        detector.onsets,
        detector.cusums,
    )
    return after, verdict


def _decide(
    count: int,
    node_rule: Rule,
    detector: _Detector,
    found: Deviation,
    known: Calibration,
    scores: Scores,
    settings: JudgeSettings,
) -> tuple[Standing, Rule | None, Action]:
    if count > settings.few_nodes:
        return Standing.ALARM, Rule.MANY, Action.FULL_ROLLBACK
    if detector.score >= settings.ticks_per_alarm:
        return Standing.ALARM, Rule.DETECTOR, Action.FULL_ROLLBACK
    if count:
        return Standing.DEVIATING, node_rule, Action.NODE_ROLLBACK
    if detector.warns:
        return Standing.WARNING, Rule.CUSUM, Action.NONE
    blind = node_rule is Rule.CONFORMAL and found.detectable > max(len(scores.nodes), 1)
    if not known.fits or blind:
        return Standing.CALIBRATING, None, Action.NONE
    return Standing.OK, None, Action.NONE


def _detect(state: JudgeState, seen: Observation, statistics: Doubles | None, rows: int) -> _Detector:
    known = state.calibration
    silent = _Detector(None, state.r, state.heights, state.onsets, state.cusums, (), False)
    if statistics is None or not known.fits:
        return silent
    # Statistics of few rows scatter more than those of many: they are given less weight, never more.
    weight = min(1.0, rows / max(known.usual_rows, 1.0)) ** 0.5
    now = np.array(
        [
            weight * fit.centring.standing(seen.tick, value)
            for fit, value in zip(known.fits, statistics.tolist(), strict=True)
        ]
    )
    follows = state.standing is not None and state.tick == seen.tick - 1
    residuals = [
        fit.centring.residual(float(now[at]), float(state.standing[at]) if follows else None)  # type: ignore[index]
        for at, fit in enumerate(known.fits)
    ]
    p = np.array([fit.p_value(residual) for fit, residual in zip(known.fits, residuals, strict=True)])
    each = power_mixture(p)
    climbed = np.maximum(0.0, state.heights + np.log(each))
    onsets = np.where(climbed == 0, NEVER, np.where(state.heights == 0, seen.tick, state.onsets))
    heights = np.array(
        [cusum.advance(before, value) for before, value in zip(state.cusums.tolist(), residuals, strict=True)]
    )
    levels = np.array([fit.warning for fit in known.fits])
    over = heights > levels
    channels = tuple(
        Channel(name, *(float(x) for x in figures))
        for name, *figures in zip(CHANNELS, statistics, residuals, p, each, heights, levels, strict=True)
    )
    r = shiryaev_roberts(state.r, each)
    return _Detector(now, r, climbed, onsets, np.where(over, 0.0, heights), channels, bool(over.any()))


def _doubted(state: JudgeState, tick: int | None, settings: JudgeSettings) -> JudgeState:
    """Return the state after an alarm: what was pending may be part of the trouble and is forgotten."""
    return JudgeState(state.calibration, tick=tick, cool=settings.cool_ticks)


def _without(scores: Scores, bad: NDArray[np.bool_]) -> Scores:
    good = ~bad
    return Scores(
        scores.nodes[good],
        scores.steps[good],
        scores.losses[good],
        scores.moved[good],
        scores.absolute[good],
        scores.decile[good],
        scores.bin[good],
    )


def _evidence(
    settings: JudgeSettings,
    known: Calibration,
    scores: Scores,
    count: int,
    found: Deviation,
    detector: _Detector,
) -> Evidence:
    return Evidence(
        len(scores.nodes),
        count,
        settings.node_level,
        found.least_p,
        found.detectable,
        len(known.ticks),
        int(known.moved.counts[-1]),
        detector.score,
        settings.ticks_per_alarm,
        detector.channels,
    )


def _verdict(
    state: JudgeState,
    seen: Observation,
    settings: JudgeSettings,
    standing: Standing,
    *,
    rule: Rule | None = None,
    action: Action = Action.NONE,
    nodes: Ids | None = None,
    onset: int | None = None,
    why: str = "",
) -> Verdict:
    """Return a verdict that no statistics went into."""
    nothing = Deviation(np.empty(0, np.int64), 1.0, 1)
    detector = _Detector(None, state.r, state.heights, state.onsets, state.cusums, (), False)
    none = np.empty(0)
    empty = Scores(
        np.empty(0, np.int64), none, none, none, none, np.empty(0, np.int64), np.empty(0, np.int64)
    )
    found = np.empty(0, np.uint64) if nodes is None else nodes
    evidence = _evidence(settings, state.calibration, empty, len(found), nothing, detector)
    evidence = replace(evidence, rows=len(seen.ids), why=why)
    return Verdict(seen.tick, standing, rule, action, found, onset, evidence)
