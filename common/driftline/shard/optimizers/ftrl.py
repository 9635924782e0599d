"""FTRL-Proximal: sparse weights by L1, per element.

n' = n + g²;  σ = (√n' − √n) / lr;  z ← z + g − σ·w;  n ← n'
w ← 0 where |z| ≤ l1, else (sign(z)·l1 − z) / ((β + √n) / lr + l2)
Source: McMahan et al., "Ad Click Prediction: a View from the Trenches", KDD 2013, algorithm 1.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from driftline.shard.numerics import root
from driftline.shard.optimizers.base import Optimizer, Rows


@dataclass(frozen=True, slots=True)
class Ftrl(Optimizer):
    """State: z[d], n[d]. `lr` is the paper's α."""

    kind: ClassVar[str] = "ftrl"
    lr: np.float32 = np.float32(0.1)
    beta: np.float32 = np.float32(1)
    l1: np.float32 = np.float32(0)
    l2: np.float32 = np.float32(0)

    def state_size(self, dim: int) -> int:
        return 2 * dim

    def step(self, rows: Rows, state: Rows, grads: Rows, lr: Rows) -> tuple[Rows, Rows]:
        d = grads.shape[1]
        z, n = state[:, :d], state[:, d:]
        rate = lr[:, None]
        grown = n + grads * grads
        sigma = (root(grown) - root(n)) / rate
        z = (z + grads) - sigma * rows
        shrunk = np.where(z > 0, self.l1 - z, -self.l1 - z)
        weights = shrunk / ((self.beta + root(grown)) / rate + self.l2)
        weights = np.where(np.abs(z) <= self.l1, np.float32(0), weights)
        return weights, np.concatenate((z, grown), axis=1)
