"""What a worker's process is told before it works."""

from __future__ import annotations

import subprocess
import sys

PROGRAM = """
import gc
from driftline_services.chassis.process import settle
settle()
print(gc.get_freeze_count() > 1000, gc.get_threshold()[0])
"""


def test_the_collector_leaves_what_was_imported_alone_and_runs_less_often() -> None:
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["True", "20000"]
