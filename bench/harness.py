"""Runs the sides of a comparison in turn, several times, and reports medians with their spread."""

from __future__ import annotations

import os
import platform
import statistics
import sys
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from pathlib import Path

import orjson

PACKAGES = ("driftline", "numpy", "redis", "hiredis", "aiokafka", "faust-streaming", "orjson")


@dataclass(frozen=True, slots=True)
class Figure:
    """One measured quantity over all repeats."""

    unit: str
    median: float
    low: float
    high: float


@dataclass(slots=True)
class Report:
    """Everything a run found."""

    machine: dict[str, object]
    versions: dict[str, str]
    figures: dict[str, Figure] = field(default_factory=dict)
    ratios: dict[str, float] = field(default_factory=dict)

    def write(self, path: Path) -> None:
        """Write the report as JSON."""
        path.write_bytes(orjson.dumps(asdict(self), option=orjson.OPT_INDENT_2))


def new_report() -> Report:
    """Return an empty report that states machine and versions."""
    machine: dict[str, object] = {
        "system": platform.platform(),
        "processor": _processor(),
        "cores": os.cpu_count(),
        "load_at_start": os.getloadavg()[0],
        "python": sys.version.split()[0],
    }
    return Report(machine, {name: version(name) for name in PACKAGES})


def interleaved(sides: Mapping[str, Callable[[], float]], unit: str, repeats: int = 5) -> dict[str, Figure]:
    """Return the figure of each side; each repeat runs every side once, in turn."""
    values: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(repeats):
        for name, side in sides.items():
            values[name].append(side())
    return {
        name: Figure(unit, statistics.median(found), min(found), max(found)) for name, found in values.items()
    }


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "")
