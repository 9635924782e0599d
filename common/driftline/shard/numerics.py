"""Arithmetic that gives the same bits on every machine.

Invariant: only + − × ÷ √, comparisons and casts, elementwise, in float32; a sum
over the dimension is an explicit halving tree, never a library reduction, whose
order of additions depends on the processor.
"""

from __future__ import annotations

import hashlib

import numpy as np
from numpy.typing import NDArray

from driftline.errors import ConfigError
from driftline.ids import U64, splitmix64

F32 = np.float32


def tree_sum(values: NDArray[np.float32]) -> NDArray[np.float32]:
    """Sum (n, d) over d as a halving tree: pad with +0 to a power of two, add halves until one is left."""
    n, width = values.shape
    size = 1 << max(width - 1, 0).bit_length()
    if size != width:
        padded = np.zeros((n, size), F32)
        padded[:, :width] = values
        values = padded
    while size > 1:
        size //= 2
        values = values[:, :size] + values[:, size : 2 * size]
    return np.ascontiguousarray(values[:, 0])


def root(values: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the correctly rounded square root, in float32."""
    return np.asarray(np.sqrt(values), dtype=F32)


def initial_rows(ids: NDArray[np.uint64], dim: int, seed: int, scale: np.float32) -> NDArray[np.float32]:
    """Return the rows (n, dim) that unseen ids are born with, uniform in [−scale, scale).

    x_j = splitmix64(splitmix64(seed xor splitmix64(id)) + j), value_j = ((x_j >> 40)·2^-23 − 1)·scale.
    """
    with np.errstate(over="ignore"):
        base = splitmix64(U64(seed) ^ splitmix64(ids))
        x = splitmix64(base[:, None] + np.arange(dim, dtype=np.uint64)[None, :])
    return ((x >> U64(40)).astype(F32) * F32(2.0**-23) - F32(1)) * scale


GOLDEN = "18d4f7a80ae169f4"


def check_machine() -> None:
    """Raise ConfigError unless this machine computes float32 as the format demands.

    Catches flush-to-zero modes (subnormals) and libraries that fuse or reorder.
    """
    tiny = np.full(8, 1e-40, F32) * F32(0.5)
    if not np.all(tiny > 0):
        raise ConfigError("this process flushes subnormal floats to zero; a replay would give other bits")
    if golden_digest() != GOLDEN:
        raise ConfigError("float32 arithmetic differs from the format's golden digest on this machine")


def golden_digest() -> str:
    """Return a digest over a fixed computation that uses every operation of the numeric rule."""
    rows = initial_rows(np.arange(64, dtype=np.uint64), 24, seed=7, scale=F32(0.5))
    grads = initial_rows(np.arange(64, 128, dtype=np.uint64), 24, seed=8, scale=F32(3))
    acc = tree_sum(grads * grads) / F32(24)
    rows = rows - (F32(0.05) / (np.sqrt(acc) + F32(1e-8)))[:, None] * grads
    return hashlib.blake2b(rows.astype("<f4").tobytes(), digest_size=8).hexdigest()
