"""Does the alarm keep its promised rate, and how fast does it find faults?

Healthy: five regimes × four lengths of a tick, more than 200 days of each regime. Faults: five kinds at
2, 4 and 8 times the usual movement, planted after two weeks. False alarms count node and tick actions
together. A fault counts as missed if a day passes without an alarm.
"""

from __future__ import annotations

from copy import deepcopy
from math import isnan

from bench.alarm_peers import Detector, Question, Series, alibi, detectors, peer_versions, series_of
from bench.alarm_world import FAULTS, REGIMES, Fault, Training, World, ticks
from bench.harness import Effort, Report, say
from driftline.drift import JudgeSettings, JudgeState, Observation, judge, least_effects

_DAYS = {1.0: 14, 5.0: 28, 15.0: 56, 60.0: 224}  # healthy days per regime and length of a tick, in minutes
_HISTORY_DAYS = 14
_STRENGTHS = (2.0, 4.0, 8.0)
_TRIALS = {1.0: 2, 5.0: 5, 15.0: 10, 60.0: 20}
_BEFORE, _AFTER = 30, 45  # ticks of the detector's statistic that are kept around a fault
NAN = float("nan")


def run(report: Report, effort: Effort) -> None:
    """Measure and enter figures and ratios."""
    promised = JudgeSettings().false_actions_per_day
    report.settings["alarm"] = {
        "promised_per_day": promised,
        "scale": effort.scale,
        "days": {f"{minutes:g}min": _days(minutes, effort) for minutes in _DAYS},
        "regimes": REGIMES,  # the order of the rates in alarm.<length>.<detector>
        "trials": {f"{minutes:g}min": effort.scaled(count) for minutes, count in _TRIALS.items()},
        "around_fault": [_BEFORE, _AFTER],
        "versions": peer_versions(),
    }
    # The longest ticks take the least time: what is wrong is seen early.
    for minutes in sorted(_TRIALS, reverse=True):
        _faults(report, World("steady", minutes), effort.scaled(_TRIALS[minutes]))
    _detectable(report, effort)
    worst: dict[str, float] = {}
    for minutes in sorted(_DAYS, reverse=True):
        days, total = _days(minutes, effort), dict[str, list[int]]()
        questions = []
        for seed, regime in enumerate(REGIMES):
            alarms, question = _healthy(World(regime, minutes), days, seed)
            questions.append(question)
            for name, count in alarms.items():
                total.setdefault(name, []).append(count)
            say(f"{minutes:g} min, {regime}, {days:g} days: {alarms}")
        peer = alibi(_settings(World("steady", minutes)))
        if peer is not None:
            total["alibi_cvm"] = [len(found[0]) for found in peer.alarms(questions)]
        for name, counts in total.items():
            rates = [count / days for count in counts]
            report.enter(f"alarm.{minutes:g}min.{name}", "false alarms per day", rates)
            worst[name] = max(worst.get(name, 0.0), *rates)
    for name, rate in worst.items():
        report.enter(f"alarm.worst.{name}", "false alarms per day, worst regime", [rate])
    report.enter_ratio("false_alarms_per_day_worst", [worst["driftline"]])
    report.enter_ratio("promised_per_day", [promised])


def _days(minutes: float, effort: Effort) -> float:
    return max(3.0, _DAYS[minutes] * effort.scale)


def _settings(world: World) -> JudgeSettings:
    return JudgeSettings(ticks_per_day=world.ticks_per_day)


def _healthy(world: World, days: float, seed: int) -> tuple[dict[str, int], Question]:
    """Return false alarms of each detector, counted from the first tick on: learning is no excuse."""
    settings = _settings(world)
    subjects = {name: make() for name, make in detectors(settings).items()}
    alarms = dict.fromkeys(subjects, 0)
    watched: Series = []
    for seen in ticks(world, round(days * world.ticks_per_day), seed):
        for name, subject in subjects.items():
            alarms[name] += subject.alarms(seen)
        watched += series_of([seen])
    return alarms, Question(watched[: settings.least_ticks], [watched[settings.least_ticks :]])


def _faults(report: Report, world: World, trials: int) -> None:
    """Enter power and delay of each detector for each fault; a trial's history is lived through once."""
    at, day, settings = (
        round(_HISTORY_DAYS * world.ticks_per_day),
        round(world.ticks_per_day),
        _settings(world),
    )
    faults = [Fault(kind, at, strength) for kind in FAULTS for strength in _STRENGTHS]
    delays: dict[str, dict[str, list[float]]] = {_key(world, fault): {} for fault in faults}
    questions = []
    for trial in range(trials):
        training = Training(world, 100 + trial)
        subjects = {name: make() for name, make in detectors(settings).items()}
        history = [training.step() for _ in range(at)]
        state = JudgeState()
        for seen in history:
            if seen.tick == at - _BEFORE:
                state = subjects["driftline"].state  # type: ignore[attr-defined]
            for subject in subjects.values():
                subject.alarms(seen)
        ways = []
        for fault in faults:
            onward = deepcopy(training)
            way = [onward.step(fault) for _ in range(day)]
            ways.append(series_of(way))
            for name, subject in deepcopy(subjects).items():
                delays[_key(world, fault)].setdefault(name, []).append(_delay(subject, way))
            if not trial:
                _trace(report, _key(world, fault), settings, state, history[-_BEFORE:] + way[:_AFTER])
        questions.append(Question(series_of(history), ways))
    peer = alibi(settings)
    for answer in peer.alarms(questions) if peer is not None else []:
        for fault, found in zip(faults, answer, strict=True):
            delay = found[0] - at + 1.0 if found else NAN
            delays[_key(world, fault)].setdefault("alibi_cvm", []).append(delay)
    for key, each in delays.items():
        for name, values in each.items():
            hits = [delay for delay in values if not isnan(delay)]
            report.enter(f"alarm.power.{key}.{name}", "share found within a day", [len(hits) / len(values)])
            if hits:
                report.enter_ratio(f"delay_ticks.{key}.{name}", hits)
        say(f"{key}: { {name: sorted(values) for name, values in each.items()} }")


def _key(world: World, fault: Fault) -> str:
    return f"{world.minutes:g}min.{fault.kind}.{fault.strength:g}x"


def _delay(subject: Detector, way: list[Observation]) -> float:
    """Return the number of ticks until the first alarm; the fault's first tick is 1."""
    for count, seen in enumerate(way, 1):
        if subject.alarms(seen):
            return float(count)
    return NAN


def _trace(
    report: Report, key: str, settings: JudgeSettings, state: JudgeState, way: list[Observation]
) -> None:
    """Enter the detector's statistic around a fault, up to the alarm."""
    values: list[float] = []
    for seen in way:
        state, verdict = judge(state, seen, settings)
        values.append(verdict.evidence.r)
        if verdict.action.value != "none":
            break
    report.enter(f"alarm.trace.{key}", f"R; alarm at {settings.ticks_per_alarm:g}", values)


def _detectable(report: Report, effort: Effort) -> None:
    """Enter what can be found after so many days of calibration, ticks of five minutes."""
    world = World("steady", 5.0)
    settings, state = _settings(world), JudgeState()
    marks = {round(days * world.ticks_per_day): days for days in (1, 2, 4, 7, 14)}
    for seen in ticks(world, round(14 * max(effort.scale, 0.3) * world.ticks_per_day) + 1, 3):
        state, _ = judge(state, seen, settings)
        if seen.tick not in marks:
            continue
        least, name = least_effects(state.calibration, settings), f"alarm.detectable.{marks[seen.tick]}d"
        report.enter(f"{name}.nodes", "nodes at once", [least.nodes])
        report.enter(f"{name}.node_factor", "× the tick's median step", [least.node_factor])
        for channel, shift in least.shift.items():
            report.enter(f"{name}.{channel}", "shift found within 60 ticks", [shift])
