"""`python -m tests.chaos`: the long runs, seed by seed; ends non-zero when anything was wrong."""

from __future__ import annotations

import argparse
import logging
import os
import platform
import shutil
import sys
import tempfile
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path

from tests.chaos.kit import disks, kills, losses, memory, network, several, takeover, zombies
from tests.chaos.kit.report import Report
from tests.integration.deployment import KAFKA, LOCAL
from tests.support.servers import ROOT

Run = Callable[[Path, Report], None]

SCENARIOS: Mapping[str, Run] = {
    "kills": lambda directory, report: kills.run(kills.Kills(), directory, report),
    "zombies-kafka": lambda directory, report: zombies.run(zombies.Zombies(KAFKA, 8), directory, report),
    "zombies-local": lambda directory, report: zombies.run(zombies.Zombies(LOCAL, 12), directory, report),
    "losses": lambda directory, report: losses.run(losses.Losses(20), directory, report),
    "several": lambda directory, report: several.run(several.Several(9), directory, report),
    "network": lambda directory, report: network.run(network.Network(16), directory, report),
    "disks-local": lambda directory, report: disks.run(disks.Disks(LOCAL), directory, report),
    "disks-kafka": lambda directory, report: disks.run(disks.Disks(KAFKA), directory, report),
    "takeover": lambda directory, report: takeover.run(takeover.Takeover(), directory, report),
    "memory": lambda directory, report: memory.run(memory.Memory(600.0), directory, report),
}


def seeds(text: str) -> list[int]:
    """Return the seeds that '1-5' or '3,7,9' names."""
    found: list[int] = []
    for part in text.split(","):
        first, _, last = part.partition("-")
        found += range(int(first), int(last or first) + 1)
    return found


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    parser.add_argument("--seeds", type=seeds, default=[1], help="1-5, or 3,7,9")
    parser.add_argument("--only", action="append", choices=SCENARIOS, help="scenarios; all when not given")
    parser.add_argument("--quiet", action="store_true", help="print reports only")
    parser.add_argument("--keep", action="store_true", help="keep the files of good runs, too")
    chosen = parser.parse_args()
    os.environ.setdefault("DRIFTLINE_TOOLS", str(ROOT / ".cache"))
    logging.disable(logging.ERROR)  # what clients say of servers that are away
    print(f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC, {os.cpu_count()} CPUs, {platform.python_version()}")
    bad = 0
    for seed in chosen.seeds:
        for name in chosen.only or SCENARIOS:
            bad += not _run(name, seed, verbose=not chosen.quiet, keep=chosen.keep)
    print("no violation" if not bad else f"{bad} runs with violations", flush=True)
    return min(bad, 1)


def _run(name: str, seed: int, *, verbose: bool, keep: bool) -> bool:
    directory = Path(tempfile.mkdtemp(prefix=f"chaos-{name}-{seed}-"))
    report = Report(name, seed, verbose)
    try:
        SCENARIOS[name](directory, report)
    except Exception as error:
        logging.disable(logging.NOTSET)
        logging.getLogger(__name__).exception("%s, seed %d", name, seed)
        logging.disable(logging.ERROR)
        report.violated(f"broke off: {type(error).__name__}: {error}")
    print("\n".join(report.lines()), flush=True)
    if report.good and not keep:
        shutil.rmtree(directory)
    else:
        print(f"  files: {directory}", flush=True)
    return report.good


if __name__ == "__main__":
    sys.exit(main())
