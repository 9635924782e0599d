"""How does the drain change with the number of workers, of rows and of dimensions? Figures, no targets.

Everything else is as in `bench.drain`; each point is measured once. All workers, the broker
and Redis share the cores of one machine.
"""

from __future__ import annotations

import json
import subprocess
import sys
from contextlib import ExitStack
from dataclasses import replace
from typing import Any

from bench import backlog
from bench.child import call, start
from bench.drain import UNIT, worker
from bench.harness import Effort, Report, say
from bench.servers import Stand, servers
from bench.workload import Workload

STEPS = 600
ROWS = (10_000, 100_000, 1_000_000, 10_000_000)
DIMENSIONS = (16, 64, 128, 256)
PROCESSES = (1, 2)


def run(report: Report, effort: Effort) -> None:
    """Measure and enter figures."""
    base, steps = Workload(), effort.scaled(STEPS)
    report.settings["growth"] = {**base.settings(), "steps": steps}
    with servers() as stand:
        for rows in ROWS:
            _enter(report, f"rows_{rows}", _drained(stand, replace(base, rows=rows), steps, f"rows{rows}"))
        for dim in DIMENSIONS:
            found = _drained(stand, replace(base, dim=dim), steps, f"dim{dim}")
            _enter(report, f"dim_{dim}", found)
        log = backlog.push(stand, "workers", base, 5 * steps)
        for processes in PROCESSES:
            stand.empty_redis()
            _enter(report, f"processes_{processes}", _together(stand, log, processes))


def _enter(report: Report, name: str, rate: float) -> None:
    report.enter(f"growth.{name}", UNIT, [rate])
    say(f"growth.{name}: {rate:,.4g} {UNIT}")


def _drained(stand: Stand, load: Workload, steps: int, table: str) -> float:
    log = backlog.push(stand, table, load, steps)
    stand.empty_redis()
    settings: dict[str, Any] = {"settings": worker(stand, table), "table": table, "ends": log.ends}
    return log.rows / float(call("bench.drain_sides:driftline", settings)["seconds"])


def _together(stand: Stand, log: backlog.Backlog, processes: int) -> float:
    """Return the rate from the last assignment, when all workers have their shards, to the last commit."""
    with ExitStack() as stack:
        children: list[subprocess.Popen[bytes]] = []
        for number in range(processes):
            settings = {**worker(stand, "workers"), "data_dir": str(stand.scratch / f"workers-{number}")}
            arguments = {"settings": settings, "table": "workers", "ends": log.ends}
            child = start("bench.drain_sides:share", arguments)
            children.append(stack.enter_context(child))
        found = [json.loads(child.communicate(timeout=300)[0].splitlines()[-1]) for child in children]
    if any(child.returncode for child in children):
        sys.exit("a worker failed")
    begun, stored = max(tuple(each) for child in found for each in child["assigned"])
    done = max(child["done"] for child in found)
    return float(log.rows * (1 - stored / sum(log.ends)) / (done - begun))
