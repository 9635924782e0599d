"""Writes the tables and pictures of docs/explanation/drift.md: `python -m bench.drift_tables`.

Invariant: what stands between `<!-- bench: NAME -->` and `<!-- end -->` is made from docs/bench-drift.json,
docs/bench-alarm.json and docs/bench-alarm-real.json, and nothing else. A test compares the page with them.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import orjson

from bench.drift_pictures import DETECTORS, IMAGES, drawn
from bench.harness import Report
from bench.tables import NOT_YET, ROOT, machine
from bench.targets import TARGETS

PAGE = ROOT / "docs" / "explanation" / "drift.md"
_DRIFT, _ALARM, _REAL = (ROOT / "docs" / f"bench-{name}.json" for name in ("drift", "alarm", "alarm-real"))
_PART = re.compile(r"(<!-- bench: ([\w\-]+) -->\n).*?(<!-- end -->)", re.S)

RATIOS = {
    "recall_random_min": "least recall of random rows over 1,000 ticks, any run",
    "recall_changed_min": "least recall of just-changed rows",
    "recall_affected_min": "least recall of affected, unchanged rows",
    "jaccard_error": "error of the Jaccard measure against exact lists, mean",
    "rebuild_vs_ours": "time of a pynndescent rebuild ÷ ours, 50,000 rows",
    "exact_vs_ours_500k": "time of exact incremental lists ÷ ours, 500,000 rows",
    "memory_factor": "peak memory ÷ (vectors + lists), the worst run",
}
SIDES = {
    "g2": "**G2**",
    "exact": "exact",
    "pynndescent_rebuild": "pynndescent, rebuilt",
    "pynndescent_update": "pynndescent, updated",
    "hnswlib_update": "hnswlib, updated and asked",
    "usearch": "usearch, removed, added and asked",
    "m_order": "M-order rule alone",
}
_TABLES = (
    *("drift-machine", "drift-ratios", "drift-sides"),
    *("alarm-false", "alarm-delays", "alarm-detectable", "alarm-real"),
)
_LENGTHS = ("1min", "5min", "15min", "60min")
_FAULTS = {
    "single_node": "one node, again and again",
    "cluster": "a tenth of the nodes",
    "rotation": "rotation of all",
    "bad_push": "one bad push of all",
    "slow_poison": "slow poisoning of all",
}


def ratios(report: Report) -> str:
    """Return the ratios that were measured, with their targets."""
    rows = []
    for name, meaning in RATIOS.items():
        if name in report.ratios:
            value, target = report.ratios[name], TARGETS[name]
            shown = _number(value)
            low, high = report.spread[name]
            spread = f"{_number(low)} – {_number(high)}" if low != high else ""
            reached = f"**{shown}**" if target.met(value) else f"{shown}, missed"
            rows.append([meaning, reached, spread, str(target)])
    left = report.settings.get("drift", {}).get("not_run")
    told = (
        f"\nNot run yet: {', '.join(f'`{name}`' for name in left)}.\n"
        if isinstance(left, list) and left
        else ""
    )
    return _table(["", "reached", "of the configurations", "target"], rows) + told


def sides(report: Report) -> str:
    """Return what each side reached in each configuration."""
    rows = []
    names = {
        name.removesuffix(suffix)
        for name in report.figures
        for suffix in (".us_per_row", ".recall_changed")
        if name.endswith(suffix)
    }
    for name in sorted(names, key=_order):
        size, metric, changed, law, side = name.removeprefix("drift.").split(".")
        recalls = [
            report.figures.get(f"{name}.recall_{group}") for group in ("random", "changed", "affected")
        ]
        error, took = report.figures.get(f"{name}.jaccard_error"), report.figures.get(f"{name}.us_per_row")
        settings = report.settings["drift"].get(name)
        rows.append(
            [
                f"{size}, {metric}, {int(changed):,} per tick, {law}",
                SIDES[side],
                f"{settings['ticks']:,}" if isinstance(settings, dict) else "",
                *("" if each is None else f"{each.low:.4f}" for each in recalls),
                "" if error is None else f"{sum(error.values) / len(error.values):.4f}",
                "" if took is None else _number(took.median),
            ]
        )
    head = ["rows, metric, changed", "side", "ticks", "random", "changed", "affected", "Jaccard error", "µs"]
    return _table(head, rows)


def false_alarms(report: Report) -> str:
    """Return the false alarms a day of the worst regime, by detector and length of a tick."""
    promise, rows = report.ratios["promised_per_day"], []
    for name, label in DETECTORS.items():
        found = [report.figures.get(f"alarm.{length}.{name}") for length in _LENGTHS]
        if not any(found):
            continue
        cells = ["" if each is None else _kept(each.high, promise) for each in found]
        kept = all(each is None or each.high <= promise for each in found)
        rows.append([label, *cells, "yes" if kept else "no"])
    run = report.settings["alarm"].get("regimes_run")
    short = (
        [f"{length} {count} of 5" for length, count in run.items() if count < 5]
        if isinstance(run, dict)
        else []
    )
    told = f"\nRegimes run so far: {', '.join(short)}.\n" if short else ""
    return _table(["detector", *_LENGTHS, f"≤ {promise:.3f} everywhere"], rows) + told


def delays(report: Report) -> str:
    """Return median delays, and how often a fault was found, at ticks of 5 and 60 minutes."""
    rows = []
    for fault, label in _FAULTS.items():
        for strength in (2, 4, 8):
            for length in ("5min", "60min"):
                key = f"{length}.{fault}.{strength}x"
                cells = [_delay(report, f"{key}.{name}") for name in DETECTORS]
                if any(cells):
                    rows.append([f"{label}, {strength} ×", length, *cells])
    return _table(["fault", "ticks of", *DETECTORS.values()], rows)


def detectable(report: Report) -> str:
    """Return what can be found after so many days of calibration."""
    rows = []
    for days in (1, 2, 4, 7, 14):
        name = f"alarm.detectable.{days}d"
        if f"{name}.nodes" not in report.figures:
            continue
        cells = [
            _number(report.figures[f"{name}.{each}"].median) for each in ("nodes", "node_factor", "movement")
        ]
        rows.append([f"{days}", *cells])
    head = ["days", "nodes that must deviate at once", "step of one, × the median", "shift of log step"]
    return _table(head, rows)


def real(answer: dict[str, Any]) -> str:
    """Return what was found on real movement."""
    healthy = answer["healthy"]
    rows = [
        [
            "the stream as it is",
            f"{len(healthy['actions'])} false actions in {answer['ticks']} ticks, promised at most"
            f" {answer['ticks'] * answer['promised_per_tick']:.2f}",
        ]
    ]
    for fault, label in _FAULTS.items():
        for strength in (2, 4, 8):
            actions = answer.get(f"{fault}.{strength}x")
            if actions is None:
                continue
            told = "not found in 15 ticks"
            if actions:
                told = f"after {actions[0]['tick'] - answer['planted_at'] + 1} ticks, by {actions[0]['rule']}"
            rows.append([f"{label}, {strength} ×", told])
    return _table(["", ""], rows)


def _delay(report: Report, key: str) -> str:
    power = report.figures.get(f"alarm.power.{key}")
    if power is None:
        return ""
    if not power.median:
        return "–"
    share = "" if power.median == 1 else f" ({power.median:.0%})"
    return f"{report.ratios[f'delay_ticks.{key}']:g}{share}"


def _kept(value: float, promise: float) -> str:
    return f"**{value:.3f}**" if value <= promise else f"{value:.2f}"


def _order(name: str) -> tuple[bool, bool, str, int, str, int]:
    size, metric, changed, law, side = name.removeprefix("drift.").split(".")
    return size != "50k", side != "g2", metric, int(changed), law, list(SIDES).index(side)


def _number(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}" if abs(value) < 0.9 else f"{value:.4g}"


def _table(head: list[str], rows: list[list[str]]) -> str:
    if not rows:
        return NOT_YET
    return "".join(f"| {' | '.join(cells)} |\n" for cells in [head, ["---"] * len(head), *rows])


def tables() -> dict[str, str]:
    """Return the tables by name, made from what was committed."""
    made = dict.fromkeys(_TABLES, NOT_YET)
    if _DRIFT.exists():
        report = Report.read(_DRIFT)
        about: dict[str, Callable[[Report], str]] = {
            "drift-machine": machine,
            "drift-ratios": ratios,
            "drift-sides": sides,
        }
        made |= {name: make(report) for name, make in about.items()}
    if _ALARM.exists():
        report = Report.read(_ALARM)
        about = {"alarm-false": false_alarms, "alarm-delays": delays, "alarm-detectable": detectable}
        made |= {name: make(report) for name, make in about.items()}
    if _REAL.exists():
        made["alarm-real"] = real(orjson.loads(_REAL.read_bytes()))
    return made


def fill(page: str) -> str:
    """Return the page with its tables made anew."""
    made = tables()
    return _PART.sub(lambda part: part[1] + made[part[2]] + part[3], page)


if __name__ == "__main__":
    PAGE.write_text(fill(PAGE.read_text()))
    for name, content in drawn().items():
        (IMAGES / name).write_text(content)
