"""Versions on storage: driftline against Lance, whole safetensors, deltalake and Icechunk, on one stream.

1,000,000 rows of 64 float32, 50 versions that change 2% each (5% of those are births, and 1% as many
rows are deleted), and 5 versions of a second branch; changed rows uniform, Zipf 1.2 or contiguous; and
uniform on an S3 server behind 20 ms per request. Every side first stores a small table of the same
making and is compared with it version by version; at full size versions 1, 25, 50 and the branch's last
are compared before anything is read against the clock.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np

from bench.child import call
from bench.harness import Effort, Report, say
from bench.latency import delayed
from bench.versions_stages import SIDES
from bench.versions_world import ROW_BYTES, Plan
from driftline.servers import S3Gateway

LAWS = ("uniform", "zipf", "contiguous")
FAR = "far"
MEMORY = "memory"  # no world of its own: what a versioner takes for 20 million row updates
DELAY = 0.02
LANCE = ("lance_overlays", "lance_merge")
_HOUR = 3600.0
_SMALL = Plan(rows=20_000, versions=30, branch=2)
_READS = 3  # processes per look-up, load and difference


def run(report: Report, effort: Effort) -> None:
    """Answer for every law, near and far. DRIFTLINE_BENCH_SIDES and _WORLDS (commas) ask for some."""
    worlds = os.environ.get("DRIFTLINE_BENCH_WORLDS", ",".join((*LAWS, FAR, MEMORY))).split(",")
    sides = os.environ.get("DRIFTLINE_BENCH_SIDES", ",".join(SIDES)).split(",")
    if MEMORY in worlds:
        rows = effort.scaled(20_000_000)
        peak = call("bench.versioner_memory:peak", {"rows": rows}, timeout=_HOUR)
        report.enter_ratio("versioner_peak_rss_mb_20m", [peak])
        worlds.remove(MEMORY)
    for world in worlds:
        for side in sides:
            measure(report, effort, world, side)
    settle(report)


def plan_of(world: str, effort: Effort) -> Plan:
    """Return the plan of a world."""
    plan = Plan(law="uniform" if world == FAR else world)
    if effort.scale < 1:
        return replace(plan, rows=effort.scaled(plan.rows), versions=12, branch=2)
    return plan


def measure(report: Report, effort: Effort, world: str, side: str) -> None:
    """Enter the figures of one side in one world."""
    plan = plan_of(world, effort)
    report.settings.setdefault("versions", {})[world] = {**asdict(plan), "delay": DELAY * (world == FAR)}
    name = f"versions.{world}.{side}"
    with place(world) as where:
        _checked(side, where, replace(_SMALL, law=plan.law), every=1)
    with place(world) as where:
        found = _stage("write", side, where, plan=asdict(plan))
        _checked(side, where, plan, every=1 << 30, written=True)
        _enter_writes(report, name, found, plan)
        for version in (1, plan.middle, plan.versions):
            reads = [
                _stage("lookup", side, _fresh_notes(where), plan=asdict(plan), version=version)
                for _ in range(_READS)
            ]
            for kind in ("cold", "warm"):
                report.enter(f"{name}.{kind}_{version}", "ms", [1e3 * each[kind] for each in reads])
        loads = [_stage("load", side, _fresh_notes(where), version=plan.middle) for _ in range(_READS)]
        report.enter(f"{name}.load", "ms", [1e3 * each for each in loads])
        ends = {"before": plan.middle, "after": plan.middle + 1}
        diffs = [_stage("differ", side, _fresh_notes(where), **ends) for _ in range(_READS)]
        report.enter(f"{name}.diff", "ms", [1e3 * each for each in diffs])
        gone = _stage("gc", side, _fresh_notes(where), kept=plan.middle)
        report.enter(f"{name}.gc", "ms", [1e3 * gone["seconds"]])
        report.enter(f"{name}.gc_freed", "MB", [gone["freed"] / 1e6])
    say(f"{name}: {', '.join(_short(report, name))}")


def _enter_writes(report: Report, name: str, found: dict[str, Any], plan: Plan) -> None:
    versions = plan.versions
    times = 1e3 * np.array(found["commit"])
    report.enter(f"{name}.commit_p50", "ms", [float(np.median(times))])
    report.enter(f"{name}.commit_p99", "ms", [float(np.percentile(times, 99))])
    if found["branch_commit"]:
        report.enter(f"{name}.branch_commit", "ms", [1e3 * float(np.median(found["branch_commit"]))])
    report.enter(f"{name}.base", "s", [found["base_seconds"]])
    report.enter(f"{name}.base_bytes", "MB", [found["base_bytes"] / 1e6])
    report.enter(f"{name}.data", "MB a version", [found["data_bytes"] / versions / 1e6])
    report.enter(f"{name}.metadata", "MB a version", [found["metadata_bytes"] / versions / 1e6])
    report.enter(f"{name}.objects", "objects a version", [found["objects"] / versions])
    share = (found["data_bytes"] + found["metadata_bytes"]) / (found["stored_rows"] * ROW_BYTES)
    report.enter(f"{name}.bytes_vs_changed", "bytes ÷ bytes of the changed rows", [share])


def _short(report: Report, name: str) -> Iterator[str]:
    for key in ("bytes_vs_changed", "commit_p50", "commit_p99", "load", "diff", "gc"):
        yield f"{key} {report.figures[f'{name}.{key}'].median:.4g}"
    for key, figure in report.figures.items():
        if key.startswith((f"{name}.cold", f"{name}.warm")):
            yield f"{key.rpartition('.')[2]} {figure.median:.4g}"


def settle(report: Report) -> None:
    """Enter the ratios: a value per law, against the best Lance mode in that column."""
    last = max((int(key.rpartition("_")[2]) for key in report.figures if ".warm_" in key), default=0)

    def over_laws(ratio: str, column: str) -> None:
        found = [
            report.figures[ours].median / best
            for law in LAWS
            if (ours := f"versions.{law}.driftline.{column}") in report.figures
            and (best := best_lance(report, law, column)) is not None
        ]
        if found:
            report.enter_ratio(ratio, found)

    own = [
        figure.median
        for law in LAWS
        if (figure := report.figures.get(f"versions.{law}.driftline.bytes_vs_changed")) is not None
    ]
    if own:
        report.enter_ratio("bytes_vs_changed", own)
    over_laws("commit_p50_vs_lance", "commit_p50")
    over_laws("ids1000_warm_vs_lance", f"warm_{last}")
    over_laws("ids1000_cold_vs_lance", f"cold_{last}")
    over_laws("full_load_vs_lance", "load")
    over_laws("diff_vs_lance", "diff")


def best_lance(report: Report, world: str, column: str) -> float | None:
    """Return the smaller of a column's figures of both Lance modes."""
    figures = [report.figures.get(f"versions.{world}.{mode}.{column}") for mode in LANCE]
    return min((figure.median for figure in figures if figure is not None), default=None)


@contextmanager
def place(world: str) -> Iterator[dict[str, Any]]:
    """Yield a fresh place to store at: a folder, or a bucket behind the delay."""
    with tempfile.TemporaryDirectory(prefix="driftline-bench-", dir=os.environ.get("TMPDIR")) as name:
        scratch = Path(name)
        (scratch / "notes").mkdir()
        (scratch / "store").mkdir()
        if world != FAR:
            yield {"folder": str(scratch / "store"), "notes": str(scratch / "notes")}
            return
        with S3Gateway(scratch / "s3") as server:
            server.create_bucket("versions")
            with delayed(server.endpoint, DELAY) as endpoint:
                yield {
                    "folder": str(server.objects / "versions"),
                    "notes": str(scratch / "notes"),
                    "endpoint": endpoint,
                    "bucket": "versions",
                    "key": server.access_key,
                    "secret": server.secret_key,
                }


def _fresh_notes(where: dict[str, Any]) -> dict[str, Any]:
    """Return the same place without anything that a process before kept of it."""
    shutil.rmtree(Path(where["notes"]) / "cache", ignore_errors=True)
    return where


def _checked(side: str, where: dict[str, Any], plan: Plan, every: int, *, written: bool = False) -> None:
    if not written:
        _stage("write", side, where, plan=asdict(plan))
    _stage("check", side, where, plan=asdict(plan), every=every)


def _stage(stage: str, side: str, where: dict[str, Any], **more: Any) -> Any:
    arguments = {"side": side, "where": where, **more}
    return call(f"bench.versions_stages:{stage}", arguments, timeout=_HOUR, blas_threads=2)
