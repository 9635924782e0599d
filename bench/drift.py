"""Is the incremental neighbour graph right, and faster than its peers?

N = 50k and 500k rows × 64, K = 10, L2 and cosine; 500 rows or 2% per tick, uniform and Zipf; all sides
take the same ticks, each in a process of its own with two threads. Recall is against brute force at
some ticks, for random, just-changed and affected unchanged rows.
"""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from bench.child import call
from bench.drift_world import DIMS, NEIGHBOURS, Plan
from bench.harness import Effort, Report, say

_LONG = 1_000  # ticks of g2 at 50k
_PEER_TICKS = {
    "exact": 20,
    "m_order": 150,
    "pynndescent_rebuild": 3,
    "pynndescent_update": 20,
    "hnswlib_update": 150,
    "usearch": 60,
}
_LARGE_TICKS = {"g2": 200, "exact": 3, "m_order": 20, "pynndescent_rebuild": 1, "hnswlib_update": 20}
_HOUR = 4 * 3600.0


def run(report: Report, effort: Effort) -> None:
    """Measure and enter figures, recall over ticks, and ratios."""
    report.settings["drift"] = {"dims": DIMS, "neighbours": NEIGHBOURS, "scale": effort.scale}
    worst: dict[str, list[float]] = {"random": [], "changed": [], "affected": [], "jaccard_error": []}
    rebuild, memory, exact = [], [], []
    for metric in ("l2", "cosine"):
        for changed, zipf in ((500, False), (500, True), (1_000, False), (1_000, True)):
            plan = Plan(50_000, metric, changed, zipf, effort.scaled(_LONG), 20)
            ours = _side(report, "g2", plan)
            for key, values in worst.items():
                values += [check[key] for check in ours["trace"] if check[key] == check[key]]
            memory.append(_factor(ours, plan))
            if zipf:
                continue  # the peers' cost does not depend on who changes
            for side, ticks in _PEER_TICKS.items():
                found = _side(report, side, _short(plan, effort.scaled(ticks)))
                if side == "pynndescent_rebuild":
                    rebuild.append(found["us_per_row"] / ours["us_per_row"])
    for metric in ("l2", "cosine"):
        for changed in (500, 10_000):
            plan = Plan(500_000, metric, changed, False, 1, 3)
            took: dict[str, float] = {}
            for side, ticks in _LARGE_TICKS.items():
                share = ticks if changed == 500 else max(1, ticks // 5)
                found = _side(report, side, _short(plan, effort.scaled(share)))
                took[side] = found["us_per_row"]
                if side == "g2":
                    memory.append(_factor(found, plan))
            exact.append(took["exact"] / took["g2"])
    for key in ("random", "changed", "affected"):
        report.enter_ratio(f"recall_{key}_min", [min(worst[key])])
    errors = worst["jaccard_error"]
    report.enter_ratio("jaccard_error", [sum(errors) / len(errors)])
    report.enter_ratio("rebuild_vs_ours", [min(rebuild)])
    report.enter_ratio("exact_vs_ours_500k", [min(exact)])
    report.enter_ratio("memory_factor", [max(memory)])


def _short(plan: Plan, ticks: int) -> Plan:
    return Plan(plan.rows, plan.metric, plan.changed, plan.zipf, ticks, min(5, ticks))


def _side(report: Report, side: str, plan: Plan) -> dict[str, Any]:
    found: dict[str, Any] = call(
        "bench.drift_sides:run_side", {"side": side, "plan": asdict(plan)}, timeout=_HOUR, blas_threads=2
    )
    law = "zipf" if plan.zipf else "uniform"
    name = f"drift.{plan.rows // 1000}k.{plan.metric}.{plan.changed}.{law}.{side}"
    report.enter(f"{name}.us_per_row", "µs per changed row", [found["us_per_row"]])
    report.enter(f"{name}.bytes_per_row", "bytes per row at the peak", [found["peak_bytes"] / plan.rows])
    for group in ("random", "changed", "affected"):
        values = [check[group] for check in found["trace"] if check[group] == check[group]]
        if values:
            report.enter(f"{name}.recall_{group}", "recall, over ticks", values)
    errors = [check["jaccard_error"] for check in found["trace"]]
    report.enter(f"{name}.jaccard_error", "mean |error| of Jaccard, over ticks", errors)
    report.settings["drift"][name] = {**asdict(plan), "fit_seconds": round(found["fit_seconds"], 1)}
    say(f"{name}: {found['us_per_row']:.0f} µs per changed row, last check {found['trace'][-1]}")
    return found


def _factor(found: dict[str, Any], plan: Plan) -> float:
    """Return peak memory ÷ (vectors + lists of 2 K neighbours with distances)."""
    return float(found["peak_bytes"]) / (plan.rows * (4 * DIMS + 2 * NEIGHBOURS * 8))
