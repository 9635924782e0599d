"""Is the incremental neighbour graph right, and faster than its peers?

N = 50k and 500k rows × 64, K = 10, L2 and cosine; 500 rows or 2% per tick, uniform and Zipf; all sides
take the same ticks, each in a process of its own with as many threads. Recall is against brute force at
some ticks, for random, just-changed and affected unchanged rows.

All of it takes hours. With BENCH_PARTS=DIR each answer is kept there, and a run that is begun
again goes on from it; recall and memory do not depend on what else the machine does, times do: those of
the ratios are measured apart, one side right after the other (`_times`).
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import asdict
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import orjson

from bench.child import call
from bench.drift_world import DIMS, NEIGHBOURS, Plan
from bench.harness import Effort, Report, say

_LONG = 1_000  # ticks of g2 at 50k
_THREADS = 1
_PEER_TICKS = {"m_order": 150, "pynndescent_update": 20, "hnswlib_update": 60, "usearch": 30}
_TIMED = {"g2": 20, "exact": 5, "pynndescent_rebuild": 2}  # ticks at 50k
_LARGE = {"g2": 3, "exact": 2}  # ticks at 500k
_REPEATS = 3
_HOUR = 4 * 3600.0
_LAWS = ((500, False), (500, True), (1_000, False), (1_000, True))


def run(report: Report, effort: Effort) -> None:
    """Measure and enter figures, recall over ticks, and ratios."""
    report.settings["drift"] = {
        "dims": DIMS,
        "neighbours": NEIGHBOURS,
        "scale": effort.scale,
        "threads": _THREADS,
        "versions": _versions("pynndescent", "hnswlib", "usearch"),
    }
    _long(report, effort)
    _peers(report, effort)
    _times(report, effort)
    _large(report, effort)


def _long(report: Report, effort: Effort) -> None:
    """G2 over a thousand ticks."""
    worst: dict[str, list[float]] = {"random": [], "changed": [], "affected": [], "jaccard_error": []}
    memory = []
    for changed, zipf in _LAWS:
        for metric in ("l2", "cosine"):
            plan = Plan(50_000, metric, changed, zipf, effort.scaled(_LONG), 20)
            ours = _enter(report, "g2", plan, _kept("g2", plan))
            for key, values in worst.items():
                values += [check[key] for check in ours["trace"] if check[key] is not None]
            memory.append(_factor(ours, plan))
    for key in ("random", "changed", "affected"):
        report.enter_ratio(f"recall_{key}_min", [min(worst[key])])
    errors = worst["jaccard_error"]
    report.enter_ratio("jaccard_error", [sum(errors) / len(errors)])
    report.enter_ratio("memory_factor", [max(memory)])


def _peers(report: Report, effort: Effort) -> None:
    """What others reach; their recall does not depend on the law for long, so each law once."""
    for changed, metric in ((500, "l2"), (1_000, "cosine")):
        for side, ticks in _PEER_TICKS.items():
            plan = _short(Plan(50_000, metric, changed, False, 1, 1), effort.scaled(ticks))
            _enter(report, side, plan, _kept(side, plan))


def _times(report: Report, effort: Effort) -> None:
    """The sides whose times are read against each other, in turn."""
    quotients = []
    for repeat in range(min(_REPEATS, effort.repeats)):
        for metric, changed in (("l2", 500), ("cosine", 1_000)):
            plan, took = Plan(50_000, metric, changed, False, 1, 1), dict[str, float]()
            for side, ticks in _TIMED.items():
                plan = _short(plan, effort.scaled(ticks))
                took[side] = _enter(report, side, plan, _kept(side, plan, f".timed{repeat}"))["us_per_row"]
            quotients.append(took["pynndescent_rebuild"] / took["g2"])
    _least(report, "rebuild_vs_ours", quotients)


def _large(report: Report, effort: Effort) -> None:
    """500k rows: one world and one set of lists for all that is timed."""
    quotients, memory = [], [report.ratios["memory_factor"]]
    for metric in ("l2", "cosine"):
        plan = Plan(500_000, metric, 500, False, 1, 1)
        ask = {"plan": asdict(plan), "ticks": {side: effort.scaled(n) for side, n in _LARGE.items()}}
        found = _once(f"drift.500k.{metric}", lambda ask=ask: _called("run_large", ask))  # type: ignore[misc]
        for changed in (500, 10_000):
            took = found[str(changed)]
            for side in _LARGE:
                name = f"drift.500k.{metric}.{changed}.uniform.{side}.us_per_row"
                report.enter(name, "µs per changed row", took[side])
            quotients.append(_median(took["exact"]) / _median(took["g2"]))
            name = f"drift.500k.{metric}.{changed}.uniform.g2.recall_changed"
            report.enter(name, "recall", [took["recall_changed"]])
        peak = found["peak_bytes"]
        report.enter(f"drift.500k.{metric}.g2.bytes_per_row", "bytes per row at the peak", [peak / plan.rows])
        memory.append(_factor(found, plan))
    _least(report, "exact_vs_ours_500k", quotients)
    report.enter_ratio("memory_factor", [max(memory)])


def _least(report: Report, key: str, quotients: list[float]) -> None:
    """Enter the least of the configurations' quotients: the target is for each of them."""
    report.enter_ratio(key, [min(quotients)])
    report.spread[key] = [min(quotients), max(quotients)]


def _median(values: list[float]) -> float:
    return sorted(values)[len(values) // 2]


def _short(plan: Plan, ticks: int) -> Plan:
    return Plan(plan.rows, plan.metric, plan.changed, plan.zipf, ticks, min(5, ticks))


def _name(side: str, plan: Plan) -> str:
    law = "zipf" if plan.zipf else "uniform"
    return f"drift.{plan.rows // 1000}k.{plan.metric}.{plan.changed}.{law}.{side}"


def _kept(side: str, plan: Plan, mark: str = "") -> dict[str, Any]:
    ask = {"side": side, "plan": asdict(plan)}
    found: dict[str, Any] = _once(f"{_name(side, plan)}.{plan.ticks}{mark}", lambda: _called("run_side", ask))
    return found


def _called(function: str, ask: dict[str, Any]) -> Any:
    return call(f"bench.drift_sides:{function}", ask, timeout=_HOUR, blas_threads=_THREADS)


def _once(name: str, ask: Callable[[], Any]) -> Any:
    """Return the kept answer of that name; ask for it, and keep it, where there is none."""
    kept = os.environ.get("BENCH_PARTS")
    if kept is None:
        return ask()
    path = Path(kept) / f"{name}.json"
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(orjson.dumps(ask()))
    return orjson.loads(path.read_bytes())


def _enter(report: Report, side: str, plan: Plan, found: dict[str, Any]) -> dict[str, Any]:
    name = _name(side, plan)
    if plan.ticks < _LONG:  # the long runs go on beside other work, for recall and memory
        timed = report.figures.get(f"{name}.us_per_row")
        times = [*(timed.values if timed is not None else []), found["us_per_row"]]
        report.enter(f"{name}.us_per_row", "µs per changed row", times)
    if f"{name}.bytes_per_row" in report.figures:
        return found  # timed again: the long run has said the rest
    report.enter(f"{name}.bytes_per_row", "bytes per row at the peak", [found["peak_bytes"] / plan.rows])
    for group in ("random", "changed", "affected"):
        values = [check[group] for check in found["trace"] if check[group] is not None]
        if values:
            report.enter(f"{name}.recall_{group}", "recall, over ticks", values)
    errors = [check["jaccard_error"] for check in found["trace"]]
    report.enter(f"{name}.jaccard_error", "mean |error| of Jaccard, over ticks", errors)
    report.settings["drift"][name] = {
        **asdict(plan),
        "checked": [check["tick"] for check in found["trace"]],
        "fit_seconds": round(found["fit_seconds"], 1),
    }
    say(f"{name}: {found['us_per_row']:.0f} µs per changed row, last check {found['trace'][-1]}")
    return found


def _factor(found: dict[str, Any], plan: Plan) -> float:
    """Return peak memory ÷ (vectors + lists of 2 K neighbours with distances)."""
    return float(found["peak_bytes"]) / (plan.rows * (4 * DIMS + 2 * NEIGHBOURS * 8))


def _versions(*packages: str) -> dict[str, str]:
    found = {}
    for package in packages:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "absent"
    return found
