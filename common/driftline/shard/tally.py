"""What each producer has sent between two barriers: rows of gradients, and how long they were.

Invariant: a by-product for whoever watches; no row and no position depends on it, so it need not be
the same to the bit whoever counts. It costs one pass over the gradients, no copy.
"""

from __future__ import annotations

from math import isfinite, sqrt

import numpy as np
from numpy.typing import NDArray

KEPT = 32
"""Producers that a barrier tells of: those that sent most rows; their JSON takes some 3 KiB."""


class Tally:
    """Counts of one shard since `since`, an LSN."""

    def __init__(self, since: int = -1) -> None:
        self.since = since
        self._sent: dict[bytes, tuple[int, float, float]] = {}

    def add(self, producer: bytes, grads: NDArray[np.float32]) -> None:
        """Count a frame's accepted gradients (n, d)."""
        count = len(grads)
        flat = grads.ravel()
        squares = float(np.vdot(flat, flat))
        rows, total, largest = self._sent.get(producer, (0, 0.0, 0.0))
        if not isfinite(squares):
            squares = float("inf")
        self._sent[producer] = rows + count, total + squares, max(largest, sqrt(squares / max(count, 1)))

    def merge(self, other: Tally) -> None:
        """Add what another has counted."""
        for producer, (rows, squares, largest) in other._sent.items():
            known = self._sent.get(producer, (0, 0.0, 0.0))
            self._sent[producer] = known[0] + rows, known[1] + squares, max(known[2], largest)

    def told(self) -> dict[str, object]:
        """Return what a barrier's marker says: per producer rows, sum of squared norms, largest frame's norm.

        The norm of a frame is the root mean square of its rows' norms; what is not finite is null.
        """
        most = sorted(self._sent.items(), key=lambda each: (-each[1][0], each[0]))[:KEPT]
        return {
            "since": self.since,
            "producers": {
                name.hex(): [rows, _rounded(squares), _rounded(largest)]
                for name, (rows, squares, largest) in most
            },
        }


def _rounded(value: float) -> float | None:
    return float(f"{value:.6g}") if isfinite(value) else None
