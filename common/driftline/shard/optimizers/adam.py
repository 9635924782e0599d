"""Adam with bias correction by running products, counted per row (lazy Adam).

p1 ← p1·β1;  p2 ← p2·β2;  m ← β1·m + (1−β1)·g;  v ← β2·v + ((1−β2)·g)·g
w ← w − (lr·(m / (1−p1))) / (√(v / (1−p2)) + eps)
Source: Kingma, Ba, "Adam: A Method for Stochastic Optimization", ICLR 2015.
Running products instead of β^t: a power is no operation of the numeric rule.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from driftline.shard.numerics import root
from driftline.shard.optimizers.base import Optimizer, Rows

_ONE = np.float32(1)


@dataclass(frozen=True, slots=True)
class Adam(Optimizer):
    """State: m[d], v[d], p1, p2; both products start at 1."""

    kind: ClassVar[str] = "adam"
    lr: np.float32 = np.float32(0.001)
    beta1: np.float32 = np.float32(0.9)
    beta2: np.float32 = np.float32(0.999)
    eps: np.float32 = np.float32(1e-8)

    def state_size(self, dim: int) -> int:
        return 2 * dim + 2

    def initial_state(self, dim: int) -> Rows:
        state = np.zeros(2 * dim + 2, np.float32)
        state[-2:] = _ONE
        return state

    def step(self, rows: Rows, state: Rows, grads: Rows, lr: Rows) -> tuple[Rows, Rows]:
        d = grads.shape[1]
        p1, p2 = state[:, 2 * d] * self.beta1, state[:, 2 * d + 1] * self.beta2
        m = self.beta1 * state[:, :d] + (_ONE - self.beta1) * grads
        v = self.beta2 * state[:, d : 2 * d] + ((_ONE - self.beta2) * grads) * grads
        mean, variance = m / (_ONE - p1)[:, None], v / (_ONE - p2)[:, None]
        rows = rows - (lr[:, None] * mean) / (root(variance) + self.eps)
        return rows, np.concatenate((m, v, p1[:, None], p2[:, None]), axis=1)
