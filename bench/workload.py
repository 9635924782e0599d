"""The gradients of a training run: ids by Zipf's law, a given number of lookups a step.

Invariant: the same arguments give the same steps; what is pushed keeps its
duplicates, because summing them is the publisher's work.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass

import numpy as np
from numpy.typing import NDArray

from driftline.ids import splitmix64


@dataclass(frozen=True, slots=True)
class Workload:
    """What a trainer does."""

    rows: int = 1_000_000
    dim: int = 64
    zipf: float = 1.2
    lookups: int = 4_096
    shards: int = 8
    seed: int = 0

    def settings(self) -> dict[str, object]:
        """Return the parameters, for a report."""
        return asdict(self)

    def id_steps(self, steps: int) -> Iterator[NDArray[np.uint64]]:
        """Yield the ids looked up in each step, duplicates included."""
        weights = 1 / np.arange(1, self.rows + 1) ** self.zipf
        ranks = np.cumsum(weights) / weights.sum()
        rng = np.random.default_rng(self.seed)
        for _ in range(steps):
            # hashed: a rank would put the ids in use side by side
            yield splitmix64(np.searchsorted(ranks, rng.random(self.lookups)).astype(np.uint64))

    def steps(self, steps: int) -> Iterator[tuple[NDArray[np.uint64], NDArray[np.float32]]]:
        """Yield ids and gradients of each step."""
        rng = np.random.default_rng(self.seed + 1)
        for ids in self.id_steps(steps):
            yield ids, rng.standard_normal((len(ids), self.dim), np.float32) * np.float32(0.01)
