"""Time, handed in: nothing in driftline reads a clock of its own accord."""

from __future__ import annotations

import time
from collections.abc import Callable

Clock = Callable[[], float]
"""Seconds since the Unix epoch."""

system: Clock = time.time
monotonic: Clock = time.monotonic
