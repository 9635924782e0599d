"""The tables of docs/performance-versions.md, from docs/bench-versions.json; see `bench.tables`.

Invariant: a side that was not measured in a world has no line there.
"""

from __future__ import annotations

from collections.abc import Callable

from bench.harness import Report
from bench.tables import NOT_YET, ROOT, figure_text, machine, markdown_table
from bench.targets import TARGETS, VERSIONS
from bench.versions import FAR, LAWS

REPORT = ROOT / "docs" / "bench-versions.json"
PAGE = ROOT / "docs" / "performance-versions.md"

_SIDES = {
    "driftline": "**driftline**",
    "lance_overlays": "Lance, overlays",
    "lance_merge": "Lance, merge_insert",
    "safetensors": "safetensors + zstd, whole",
    "deltalake": "deltalake",
    "icechunk": "Icechunk",
}
_MEANINGS = {
    "bytes_vs_changed": "bytes stored ÷ bytes of the changed rows",
    "commit_p50_vs_lance": "commit, median ÷ Lance",
    "ids1000_warm_vs_lance": "1,000 ids of version 50, warm ÷ Lance",
    "ids1000_cold_vs_lance": "open version 50 and 1,000 ids, cold ÷ Lance",
    "full_load_vs_lance": "load version 25 whole ÷ Lance",
    "diff_vs_lance": "difference of versions 25 and 26 ÷ Lance",
    "versioner_peak_rss_mb_20m": "a versioner's peak resident memory over 20 million row updates, MiB",
}
_STORED = {
    "bytes_vs_changed": "bytes ÷ changed rows",
    "data": "data, MB a version",
    "metadata": "metadata, MB a version",
    "objects": "objects a version",
    "commit_p50": "commit p50, ms",
    "commit_p99": "commit p99, ms",
    "branch_commit": "commit on the branch, ms",
}
_READ = {
    "cold_1": "V1 cold",
    "cold_25": "V25 cold",
    "cold_50": "V50 cold",
    "warm_1": "V1 warm",
    "warm_25": "V25 warm",
    "warm_50": "V50 warm",
    "load": "full load",
    "diff": "diff(25, 26)",
    "gc": "GC of the oldest 25",
}


def ratios(report: Report) -> str:
    """Return the ratios over the laws, with their targets."""
    rows = []
    for name, meaning in _MEANINGS.items():
        if name in report.ratios:
            ratio, (low, high), target = report.ratios[name], report.spread[name], VERSIONS.get(name)
            reached = f"**{ratio:.3g}**" if target is None or target.met(ratio) else f"{ratio:.3g}, missed"
            rows.append([meaning, reached, f"{low:.3g} – {high:.3g}", str(TARGETS.get(name, ""))])
    return markdown_table(["ratio", "median over the laws", "range", "target"], rows) if rows else NOT_YET


def sides(report: Report, world: str, columns: dict[str, str]) -> str:
    """Return a line per side that was measured in a world."""
    rows = [
        [shown, *(figure_text(report, f"versions.{world}.{side}.{column}") for column in columns)]
        for side, shown in _SIDES.items()
        if f"versions.{world}.{side}.gc" in report.figures
    ]
    return markdown_table(["", *columns.values()], rows)


TABLES: dict[str, Callable[[Report], str]] = {"machine": machine, "ratios": ratios}
for _world in (*LAWS, FAR):
    TABLES[f"{_world}-stored"] = lambda report, world=_world: sides(report, world, _STORED)  # type: ignore[misc]
    TABLES[f"{_world}-read"] = lambda report, world=_world: sides(report, world, _READ)  # type: ignore[misc]


def stored() -> Report | None:
    """Return the committed report, None while there is none."""
    return Report.read(REPORT) if REPORT.exists() else None
