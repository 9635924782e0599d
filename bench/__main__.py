"""`python -m bench [QUESTION …] [--json FILE]`: run benchmarks and print figures and ratios.

The report is written after each question. A FILE that is there keeps the answers to
the questions that are not asked again, if it is from this machine and these versions.
"""

from __future__ import annotations

import argparse
import importlib
import sys
from dataclasses import replace
from pathlib import Path

from bench.harness import SHORT, Effort, Report
from bench.targets import TARGETS

QUESTIONS = {
    "drain": "how fast is a backlog drained, against its parts, bare aiokafka and HugeCTR HPS?",
    "freshness": "how long from push to readable, against HPS?",
    "lookups": "how fast are rows read, against redis-py and raw sockets?",
    "takeover": "how does the start of an aggregator depend on the size of its table?",
    "transports": "how fast is the whole pipeline on local:// against Kafka?",
    "memory": "how many bytes does a row take in Redis and in an aggregator?",
    "growth": "how does the drain change with processes, rows and dimensions?",
}
APART = {
    "drift": "is the incremental neighbour graph right, and faster than its peers?",
    "versions": "what do versions cost to store and read, against Lance and others, near and far?",
    "alarm": "does the alarm keep its promised rate, and how fast does it find faults?",
}
"""Asked by name only: they take hours, and have targets of their own in the Makefile."""


def main() -> None:
    """Run the questions asked for, or all."""
    known = "\n".join(f"  {name:12}{question}" for name, question in (QUESTIONS | APART).items())
    parser = argparse.ArgumentParser(
        prog="python -m bench",
        description=f"{__doc__}\nquestions:\n{known}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "questions",
        nargs="*",
        metavar="QUESTION",
        help="of those above; none: all but drift, alarm and versions",
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the report here")
    parser.add_argument(
        "--short", action="store_true", help="once, a tenth of everything: shows that it runs"
    )
    parser.add_argument("--repeats", type=int, metavar="N", help="instead of 5")
    asked = parser.parse_args()
    effort = SHORT if asked.short else Effort()
    if asked.repeats is not None:
        effort = replace(effort, repeats=asked.repeats)
    for name in asked.questions:
        if name not in QUESTIONS | APART:
            parser.error(f"unknown question {name!r}; known: {', '.join(QUESTIONS | APART)}")
    report = _begin(asked.json)
    for name in asked.questions or QUESTIONS:
        importlib.import_module(f"bench.{name}").run(report, effort)
        if asked.json is not None:
            report.write(asked.json)
    _print(report)


def _begin(path: Path | None) -> Report:
    report = Report.new()
    if path is None or not path.exists():
        return report
    before = Report.read(path)
    if before.versions != report.versions or before.machine["processor"] != report.machine["processor"]:
        sys.exit(f"{path} is from another machine or other versions; name another file or remove it")
    before.machine = report.machine
    return before


def _print(report: Report) -> None:
    for name, figure in report.figures.items():
        print(f"{name:36} {figure.median:>12,.4g} {figure.unit}  ({figure.low:,.4g} to {figure.high:,.4g})")
    for name, ratio in report.ratios.items():
        low, high = report.spread[name]
        target = TARGETS.get(name)
        wanted = f"target {target}: {'met' if target.met(ratio) else 'NOT met'}" if target else ""
        print(f"{name:36} {ratio:>12.2f}  ({low:.2f} to {high:.2f})  {wanted}")


if __name__ == "__main__":
    main()
