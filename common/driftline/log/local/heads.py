"""Next offsets of a topic's partitions in shared memory, so that waiting costs no SQL.

Invariant: a hint. A head is raised after the commit it tells of, by an aligned
8-byte store, and may lag (a writer killed in between, two writers crossing) but the
records it tells of are there. SQLite is the truth; readers refresh from it now and then.

Behind the P heads stand P gates: until when (CLOCK_MONOTONIC, ns) others are asked to
keep off a partition so that its checkpoint gets a turn. Asked, not forced: a gate left
by a killed process opens by itself.
"""

from __future__ import annotations

import mmap
import time
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from driftline.errors import StateError

HEAD_BYTES = 8

LONGEST_SHUT_S = 0.5
"""Longest time that a shut gate holds anybody up."""

GATE_POLL_S = 0.0005


def create_heads(path: Path, partitions: int) -> None:
    """Create the file with all heads at 0 and all gates open."""
    path.write_bytes(bytes(2 * HEAD_BYTES * partitions))


class Heads:
    """The mapped file of one topic."""

    def __init__(self, path: Path, partitions: int) -> None:
        size = 2 * HEAD_BYTES * partitions
        with path.open("r+b") as file:
            if path.stat().st_size != size:
                raise StateError(
                    f"{path} has {path.stat().st_size} bytes, {partitions} partitions need {size}"
                )
            self._map = mmap.mmap(file.fileno(), size)
        words = memoryview(self._map).cast("Q")
        self._heads, self._gates = words[:partitions], words[partitions:]

    def get(self, partition: int) -> int:
        """Return the head of one partition."""
        return self._heads[partition]

    def all(self) -> NDArray[np.uint64]:
        """Return a copy of all heads, u64 (partitions,)."""
        return np.array(self._heads, dtype=np.uint64)

    def lift(self, partition: int, offset: int) -> None:
        """Raise the head of `partition` to `offset`; never lowers it but for a crossing writer."""
        # Not max(): a store of the same value would undo that of a writer in between.
        if self._heads[partition] < offset:  # noqa: PLR1730
            self._heads[partition] = offset

    def shut(self, partition: int, seconds: float) -> None:
        """Ask others to keep off `partition` for `seconds`; 0 lets them in again."""
        self._gates[partition] = time.monotonic_ns() + int(seconds * 1e9) if seconds > 0 else 0

    def wait_open(self, partition: int) -> None:
        """Block while the gate of `partition` is shut, at most `LONGEST_SHUT_S`."""
        until = self._gates[partition]
        if until:
            # Bounded on its own: after a reboot the clock starts again below an old gate.
            until = min(until, time.monotonic_ns() + int(LONGEST_SHUT_S * 1e9))
            while self._gates[partition] and time.monotonic_ns() < until:
                time.sleep(GATE_POLL_S)
