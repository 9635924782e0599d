"""The detectors compared: ours, and those that others use, on the same tick statistics.

A peer watches one series, the median step relieved of the learning rate, which every one of the planted
table-wide faults moves; it may learn from the same history as ours. Each answers for a tick: alarm or not.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Protocol

import numpy as np
import orjson

from driftline.drift import Action, JudgeSettings, JudgeState, Observation, judge

_ALIBI_REFERENCE = 500


class Detector(Protocol):
    """Sees ticks in order of time."""

    def alarms(self, seen: Observation) -> bool: ...


class Ours:
    """The judge; node and tick actions together."""

    def __init__(self, settings: JudgeSettings) -> None:
        self._settings, self.state = settings, JudgeState()

    def alarms(self, seen: Observation) -> bool:
        self.state, verdict = judge(self.state, seen, self._settings)
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


Series = list[tuple[int, float]]
"""Ticks and values."""


def series_of(seen: Sequence[Observation]) -> Series:
    """Return the series that the peers watch."""
    return [(each.tick, value) for each in seen if (value := series(each)) is not None]


@dataclass(frozen=True, slots=True)
class Question:
    """A history, and ways to go on from it."""

    history: Series
    ways: list[Series]


class Alibi:
    """alibi-detect's online CVM detector, its expected run time set to the promise; see `alarm_alibi`.

    It runs in a process of its own that takes half a minute to start, so it is asked once about many series.
    """

    def __init__(self, settings: JudgeSettings, python: str) -> None:
        self._settings, self._python = settings, python

    def alarms(self, questions: Sequence[Question]) -> list[list[list[int]]]:
        """Return for each question the ticks at which it alarms on each of the ways."""
        ert = self._settings.ticks_per_day / self._settings.false_actions_per_day
        asked = {
            "ert": round(ert),
            "questions": [
                {
                    "reference": [value for _, value in each.history[-_ALIBI_REFERENCE:]],
                    "series": [[value for _, value in way] for way in each.ways],
                }
                for each in questions
            ],
        }
        done = subprocess.run(
            [self._python, str(Path(__file__).with_name("alarm_alibi.py"))],
            input=orjson.dumps(asked),
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            check=True,
        )
        answers: list[list[list[int]]] = orjson.loads(done.stdout.splitlines()[-1])
        return [
            [[way[place][0] for place in places] for way, places in zip(question.ways, found, strict=True)]
            for question, found in zip(questions, answers, strict=True)
        ]


def alibi(settings: JudgeSettings) -> Alibi | None:
    """Return the detector of alibi-detect where BENCH_ALIBI names a Python that has it."""
    python = os.environ.get("BENCH_ALIBI")
    return None if python is None else Alibi(settings, python)


def detectors(settings: JudgeSettings) -> dict[str, Callable[[], Detector]]:
    """Return the detectors that are installed and go along tick by tick."""
    found: dict[str, Callable[[], Detector]] = {
        "driftline": lambda: Ours(settings),
        "three_sigma": lambda: ThreeSigma(settings),
    }
    if find_spec("river") is not None:
        found["adwin"] = lambda: River(settings, "ADWIN")
        found["page_hinkley"] = lambda: River(settings, "PageHinkley")
    return found


def peer_versions() -> dict[str, str]:
    """Return the versions of the peers at hand."""
    found = {"river": version("river")} if find_spec("river") is not None else {}
    python = os.environ.get("BENCH_ALIBI")
    if python is not None:
        asked = [python, "-c", "from importlib.metadata import version; print(version('alibi-detect'))"]
        found["alibi-detect"] = (
            subprocess.run(asked, stdout=subprocess.PIPE, check=True).stdout.decode().strip()
        )
    return found
