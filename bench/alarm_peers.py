"""The detectors compared: ours, and those that others use, on the same tick statistics.

A peer watches one series, the median step relieved of the learning rate, which every one of the planted
table-wide faults moves; it may learn from the same history as ours. Each answers for a tick: alarm or not.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib.util import find_spec
from typing import Protocol

import numpy as np

from driftline.drift import Action, JudgeSettings, JudgeState, Observation, judge


class Detector(Protocol):
    """Sees ticks in order of time."""

    def alarms(self, seen: Observation) -> bool: ...


class Ours:
    """The judge; node and tick actions together."""

    def __init__(self, settings: JudgeSettings) -> None:
        self._settings, self._state = settings, JudgeState()

    def alarms(self, seen: Observation) -> bool:
        self._state, verdict = judge(self._state, seen, self._settings)
        return verdict.action is not Action.NONE


def series(seen: Observation) -> float | None:
    """Return the median log step less the log learning rate; None in an empty tick."""
    steps = seen.measures["relative_offset"]
    if not len(steps):
        return None
    return float(np.log(np.median(steps)) - np.log(seen.learning_rate or 1.0))


class ThreeSigma:
    """Mean + 3 standard deviations of the last seven days."""

    def __init__(self, settings: JudgeSettings) -> None:
        self._window, self._least = settings.window_ticks, settings.least_ticks
        self._values: list[float] = []

    def alarms(self, seen: Observation) -> bool:
        value = series(seen)
        if value is None:
            return False
        known = np.array(self._values[-self._window :])
        bad = len(known) >= self._least and value > known.mean() + 3 * known.std()
        if not bad:
            self._values.append(value)
        return bool(bad)


class River:
    """A detector of river, at its defaults, on the series."""

    def __init__(self, settings: JudgeSettings, name: str) -> None:
        from river import drift

        self._detector = getattr(drift, name)()
        self._left = settings.least_ticks

    def alarms(self, seen: Observation) -> bool:
        value = series(seen)
        if value is None:
            return False
        self._detector.update(value)
        self._left -= 1
        return bool(self._detector.drift_detected) and self._left < 0


class AlibiCusum:
    """alibi-detect's online CVM detector on the series, its expected run time set to the promise."""

    def __init__(self, settings: JudgeSettings) -> None:
        self._settings = settings
        self._reference: list[float] = []
        self._detector: Callable[[np.ndarray], dict[str, dict[str, int]]] | None = None

    def alarms(self, seen: Observation) -> bool:
        value = series(seen)
        if value is None:
            return False
        if self._detector is None:
            self._reference.append(value)
            if len(self._reference) >= self._settings.least_ticks:
                from alibi_detect.cd import CVMDriftOnline

                ert = self._settings.ticks_per_day / self._settings.false_actions_per_day
                self._detector = CVMDriftOnline(
                    np.array(self._reference, np.float32), ert=ert, window_sizes=[20], verbose=False
                ).predict
            return False
        return bool(self._detector(np.array([value], np.float32))["data"]["is_drift"])


def detectors(settings: JudgeSettings) -> dict[str, Callable[[], Detector]]:
    """Return the detectors that are installed; alibi-detect wants a numpy of its own."""
    found: dict[str, Callable[[], Detector]] = {
        "driftline": lambda: Ours(settings),
        "three_sigma": lambda: ThreeSigma(settings),
    }
    if find_spec("river") is not None:
        found["adwin"] = lambda: River(settings, "ADWIN")
        found["page_hinkley"] = lambda: River(settings, "PageHinkley")
    if find_spec("alibi_detect") is not None:
        found["alibi_cvm"] = lambda: AlibiCusum(settings)
    return found
