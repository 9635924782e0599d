"""Writes the tables of README and docs from a report: `python -m bench.tables`.

Invariant: what stands between `<!-- bench: NAME -->` and `<!-- end -->` is made from
docs/bench.json and nothing else; a figure that was not measured is not stated. A test
compares the pages with the report.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from bench.harness import Report
from bench.targets import TARGETS

ROOT = Path(__file__).parents[1]
REPORT = ROOT / "docs" / "bench.json"
PAGES = (ROOT / "README.md", ROOT / "docs" / "performance.md")
_PART = re.compile(r"(<!-- bench: ([\w\-]+) -->\n).*?(<!-- end -->)", re.S)
NOT_YET = "Not measured yet: `make bench JSON=docs/bench.json`, then `python -m bench.tables`.\n"

MEANINGS = {
    "drain_vs_parts": "drain ÷ its parts run one after the other",
    "drain_vs_apply": "drain ÷ decode + map + apply alone, in memory",
    "faust_vs_bare": "drain under Faust ÷ the same shard code on bare aiokafka",
    "drain_vs_hps_redispy": "drain ÷ HPS's update path with redis-py",
    "drain_vs_hps_raw": "drain ÷ HPS's update path with raw RESP",
    "merged_vs_hps_raw_256k": "drain, gradients merged over 6 steps ÷ HPS raw, 256 KiB messages",
    "merged_vs_hps_raw_merged": "drain, gradients merged over 6 steps ÷ HPS raw, values merged likewise",
    "fresh_p50_vs_hps_30k": "push → readable, median, 30k rows/s ÷ HPS",
    "fresh_p99_vs_hps_30k": "push → readable, 99th percentile, 30k rows/s ÷ HPS",
    "fresh_p50_vs_hps_half": "push → readable, median, half the live maximum ÷ HPS",
    "fresh_p99_vs_hps_half": "push → readable, 99th percentile, half the live maximum ÷ HPS",
    "get_vs_redispy": "`table.get` of 1,024 ids ÷ redis-py with hiredis",
    "get_vs_raw": "`table.get` of 1,024 ids ÷ raw sockets",
    "start_1m_vs_10k": "start to first applied event, 1M rows ÷ 10k rows",
    "local_vs_kafka": "whole pipeline on `local://` ÷ on Kafka",
    "aggregator_bytes_factor": "aggregator's bytes per cached row ÷ (row + state + 24)",
    "redis_bytes_factor": "Redis's bytes ÷ those of a plain hash of the same values",
}

_DRAIN = {
    "drain.driftline": "**driftline**, as a user runs it",
    "drain.bare": "the same shard code on bare aiokafka",
    "drain.fetch": "part: fetch alone",
    "drain.apply": "part: decode + map + apply alone",
    "drain.flush": "part: commits to Redis alone",
    "drain.publish": "part: states to the updates topic alone",
    "drain.one_after_the_other": "all parts, one after the other",
    "drain.hps_redispy": "HPS emulation, redis-py with hiredis",
    "drain.hps_raw": "HPS emulation, raw RESP",
    "drain.hps_raw_aiokafka": "HPS emulation, raw RESP, on aiokafka instead of librdkafka",
    "drain.hps_raw_256k": "HPS emulation, raw RESP, 256 KiB messages",
    "drain.merged": "**driftline**, gradients merged over 6 steps (rows before merging)",
    "drain.hps_raw_merged": "HPS emulation, raw RESP, values merged over 6 steps",
}
_GROWTH = {
    "growth.rows_10000": "10k ids",
    "growth.rows_100000": "100k ids",
    "growth.rows_1000000": "1M ids",
    "growth.rows_10000000": "10M ids",
    "growth.dim_16": "16 dimensions",
    "growth.dim_64": "64 dimensions",
    "growth.dim_128": "128 dimensions",
    "growth.dim_256": "256 dimensions",
    "growth.processes_1": "1 aggregator",
    "growth.processes_2": "2 aggregators",
}
_FRESHNESS = {
    f"fresh.{side}_{percentile}_{name}": f"{who}, {what}, {at}"
    for name, at in (("30k", "30k rows/s"), ("half", "half the live maximum"))
    for percentile, what in (("p50", "median"), ("p99", "99th percentile"))
    for side, who in (("driftline", "**driftline**"), ("hps", "HPS emulation, raw RESP"))
} | {"fresh.live_maximum": "the live maximum: what becomes readable while the trainer pushes all it can"}
_LOOKUPS = {
    f"lookups.{kind}_{clients}.{side}": f"{who}, {kind}, {clients} client{'s' * (clients > 1)}"
    for kind in ("uniform", "zipf")
    for clients in (1, 4, 16)
    for side, who in (
        ("driftline", "**driftline**"),
        ("redispy", "redis-py with hiredis"),
        ("raw", "raw socket"),
    )
}
_TAKEOVER = {"start.10k": "10k rows", "start.1m": "1M rows"}
_TRANSPORTS = {"pipeline.local": "`local://`", "pipeline.kafka": "`kafka://`"}
_MEMORY = {
    "memory.redis_row": "Redis, a row with its share of everything",
    "memory.redis_plain_row": "Redis, the same id and value in a plain hash",
    "memory.aggregator_row": "aggregator, a cached row (resident memory)",
    "memory.aggregator_of_budget": "the most a process took for a cache of 64 MiB, temporaries included",
}


def figures(report: Report, names: dict[str, str]) -> str:
    """Return a table of those figures that were measured."""
    rows = [
        [
            meaning,
            f"{_number(figure.median)} {figure.unit}",
            f"{_number(figure.low)} – {_number(figure.high)}" if len(figure.values) > 1 else "once",
        ]
        for name, meaning in names.items()
        if (figure := report.figures.get(name)) is not None
    ]
    return markdown_table(["", "median", "spread"], rows)


def ratios(report: Report, names: Sequence[str] = tuple(MEANINGS)) -> str:
    """Return a table of those ratios that were measured, with their targets."""
    rows = []
    for name in names:
        if name not in report.ratios:
            continue
        ratio, (low, high), target = report.ratios[name], report.spread[name], TARGETS.get(name)
        reached = f"**{ratio:.2f}**" if target is None or target.met(ratio) else f"{ratio:.2f}, missed"
        rows.append([MEANINGS[name], reached, f"{low:.2f} – {high:.2f}", str(target or "")])
    return markdown_table(["ratio", "reached", "spread", "target"], rows)


def machine(report: Report) -> str:
    """Return one line on where and with what the report was made."""
    versions = ", ".join(f"{name} {version}" for name, version in report.versions.items())
    about = report.machine
    return (
        f"{about['processor']}, {about['cores']} cores, {about['memory_gb']} GB, "
        f"Python {about['python']}; {versions}.\n"
    )


TABLES: dict[str, Callable[[Report], str]] = {
    "machine": machine,
    "ratios": ratios,
    "drain": lambda report: figures(report, _DRAIN),
    "growth": lambda report: figures(report, _GROWTH),
    "freshness": lambda report: figures(report, _FRESHNESS),
    "lookups": lambda report: figures(report, _LOOKUPS),
    "takeover": lambda report: figures(report, _TAKEOVER),
    "transports": lambda report: figures(report, _TRANSPORTS),
    "memory": lambda report: figures(report, _MEMORY),
}


def figure_text(report: Report, name: str) -> str:
    """Return the median of a figure, "–" where it was not measured."""
    figure = report.figures.get(name)
    return _number(figure.median) if figure is not None else "–"


def fill(page: str, report: Report | None, tables: Mapping[str, Callable[[Report], str]] = TABLES) -> str:
    """Return a page with its tables made from `report`."""
    return _PART.sub(
        lambda part: part[1] + (tables[part[2]](report) if report is not None else NOT_YET) + part[3], page
    )


def stored() -> Report | None:
    """Return the committed report, None while there is none."""
    return Report.read(REPORT) if REPORT.exists() else None


def _number(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def markdown_table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    if not rows:
        return NOT_YET
    lines = [head, ["---"] * len(head), *rows]
    return "".join(f"| {' | '.join(cells)} |\n" for cells in lines)


def main() -> None:
    """Write the tables of all pages."""
    from bench import tables_versions

    for path in PAGES:
        path.write_text(fill(path.read_text(), stored()))
    page = tables_versions.PAGE
    page.write_text(fill(page.read_text(), tables_versions.stored(), tables_versions.TABLES))


if __name__ == "__main__":
    main()
