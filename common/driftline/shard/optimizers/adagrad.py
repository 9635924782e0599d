"""Adagrad: one accumulator per element.

acc ← acc + g²;  w ← w − (lr·g) / (√acc + eps)
Source: Duchi, Hazan, Singer, "Adaptive Subgradient Methods", JMLR 2011.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from driftline.shard.numerics import root
from driftline.shard.optimizers.base import Optimizer, Rows


@dataclass(frozen=True, slots=True)
class Adagrad(Optimizer):
    """State: acc[d]."""

    kind: ClassVar[str] = "adagrad"
    lr: np.float32 = np.float32(0.05)
    eps: np.float32 = np.float32(1e-8)

    def state_size(self, dim: int) -> int:
        return dim

    def step(self, rows: Rows, state: Rows, grads: Rows, lr: Rows) -> tuple[Rows, Rows]:
        acc = state + grads * grads
        return rows - (lr[:, None] * grads) / (root(acc) + self.eps), acc
