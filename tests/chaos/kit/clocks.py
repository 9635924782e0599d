"""Processes whose wall clock is wrong.

Invariant: only what Python asks for the time of day is shifted (`time.time`,
`time.time_ns`), before anything else is imported; monotonic time is left alone, as
by a clock that was set wrong.
"""

from __future__ import annotations

import sys

from driftline.servers.child import Command, spawn
from tests.integration.deployment import Deployment, Worker

# A program of its own: this module imports driftline, which has seen the right time already.
_SHIFT = """
import runpy, sys, time
offset, module = float(sys.argv[1]), sys.argv[2]
seconds, nanoseconds = time.time, time.time_ns
time.time = lambda: seconds() + offset
time.time_ns = lambda: nanoseconds() + int(offset * 1e9)
sys.argv = [module]
runpy.run_module(module, run_name="__main__", alter_sys=True)
"""


class ShiftedWorker(Worker):
    """An aggregator whose clock is `offset` seconds ahead."""

    def __init__(self, deployment: Deployment, name: str, offset: float) -> None:
        super().__init__(deployment, name, None)
        self._offset = offset

    def start(self) -> None:
        module = "driftline_services.aggregator"
        arguments = [sys.executable, "-c", _SHIFT, str(self._offset), module]
        self._child = spawn("aggregator", Command(arguments, self._environment), self._directory)
