"""Stochastic gradient descent: w ← w − lr·g. No state."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from driftline.shard.optimizers.base import Optimizer, Rows


@dataclass(frozen=True, slots=True)
class Sgd(Optimizer):
    """Plain SGD."""

    kind: ClassVar[str] = "sgd"
    lr: np.float32 = np.float32(0.05)

    def state_size(self, dim: int) -> int:
        return 0

    def step(self, rows: Rows, state: Rows, grads: Rows, lr: Rows) -> tuple[Rows, Rows]:
        return rows - lr[:, None] * grads, state
