"""Does the alarm keep its promised rate, and how fast does it find faults?

Healthy: five regimes × four lengths of a tick, at least 200 days in all. Faults: five kinds at 2, 4 and
8 times the usual movement, planted after two weeks. False alarms count node and tick actions together.
A fault counts as missed if a day passes without an alarm.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import isnan

from bench.alarm_peers import detectors
from bench.alarm_world import FAULTS, REGIMES, Fault, World, ticks
from bench.harness import Effort, Report, say
from driftline.drift import JudgeSettings, JudgeState, judge, least_effects

_DAYS = {1.0: 14, 5.0: 28, 15.0: 56, 60.0: 112}  # healthy days per regime and length of a tick, in minutes
_HISTORY_DAYS = 14
_STRENGTHS = (2.0, 4.0, 8.0)
_TRIALS = 5
_FAULT_MINUTES = (5.0, 60.0)


@dataclass(slots=True)
class _Tally:
    alarms: int = 0
    days: float = 0.0

    @property
    def per_day(self) -> float:
        return self.alarms / self.days


def run(report: Report, effort: Effort) -> None:
    """Measure and enter figures and ratios."""
    promised = JudgeSettings().false_actions_per_day
    report.settings["alarm"] = {"promised_per_day": promised, "scale": effort.scale}
    worst: dict[str, float] = {}
    for minutes, days in _DAYS.items():
        for seed, regime in enumerate(REGIMES):
            tallies = _healthy(World(regime, minutes), max(3.0, days * effort.scale), seed)
            for name, tally in tallies.items():
                report.enter(f"alarm.{minutes:g}min.{regime}.{name}", "false alarms per day", [tally.per_day])
                worst[name] = max(worst.get(name, 0.0), tally.per_day)
            say(
                f"{minutes:g} min, {regime}: { ({name: round(t.per_day, 3) for name, t in tallies.items()}) }"
            )
    for name, rate in worst.items():
        report.enter(f"alarm.worst.{name}", "false alarms per day, worst regime", [rate])
    report.enter_ratio("false_alarms_per_day_worst", [worst["driftline"]])
    report.enter_ratio("promised_per_day", [promised])
    for minutes in _FAULT_MINUTES:
        for kind in FAULTS:
            for strength in _STRENGTHS:
                _fault(report, World("steady", minutes), kind, strength, effort.scaled(_TRIALS))
    _detectable(report, effort)


def _settings(world: World) -> JudgeSettings:
    return JudgeSettings(ticks_per_day=world.ticks_per_day)


def _healthy(world: World, days: float, seed: int) -> dict[str, _Tally]:
    """Return false alarms of each detector, counted from the first tick on: learning is no excuse."""
    makers = detectors(_settings(world))
    subjects = {name: make() for name, make in makers.items()}
    tallies = {name: _Tally(days=days) for name in subjects}
    for seen in ticks(world, round(days * world.ticks_per_day), seed):
        for name, subject in subjects.items():
            tallies[name].alarms += subject.alarms(seen)
    return tallies


def _fault(report: Report, world: World, kind: str, strength: float, trials: int) -> None:
    at, day = round(_HISTORY_DAYS * world.ticks_per_day), round(world.ticks_per_day)
    delays: dict[str, list[float]] = {}
    for trial in range(trials):
        subjects = {name: make() for name, make in detectors(_settings(world)).items()}
        found: dict[str, float] = dict.fromkeys(subjects, float("nan"))
        for seen in ticks(world, at + day, 100 + trial, Fault(kind, at, strength)):
            for name, subject in subjects.items():
                if subject.alarms(seen) and seen.tick >= at and isnan(found[name]):
                    found[name] = seen.tick - at + 1.0
            if not any(isnan(delay) for delay in found.values()):
                break
        for name, delay in found.items():
            delays.setdefault(name, []).append(delay)
    for name, values in delays.items():
        hits = [delay for delay in values if not isnan(delay)]
        key = f"{world.minutes:g}min.{kind}.{strength:g}x.{name}"
        report.enter(f"alarm.power.{key}", "share found within a day", [len(hits) / len(values)])
        if hits:
            report.enter(f"alarm.delay.{key}", "ticks", hits)
            report.enter_ratio(f"delay_ticks.{key}", hits)
    say(f"{world.minutes:g} min, {kind} {strength:g}x: {delays}")


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
