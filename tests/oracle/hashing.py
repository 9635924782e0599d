"""splitmix64 on Python ints: which shard holds an id, and the row an unseen id has.

Invariant: formats.md, "Numbers", word for word; splitmix64(0) = E220A8397B1DCDAF.
"""

from __future__ import annotations

from tests.oracle.f32 import F32, f32, mul

_M64 = (1 << 64) - 1


def splitmix64(x: int) -> int:
    """formats.md: "the standard finaliser"."""
    z = (x + 0x9E3779B97F4A7C15) & _M64
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & _M64
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & _M64
    return z ^ (z >> 31)


def shard_of(row_id: int, shards: int) -> int:
    """formats.md: "shard = splitmix64(id) mod P"."""
    return splitmix64(row_id) % shards


def initial_row(seed: int, scale: float, row_id: int, dim: int) -> tuple[F32, ...]:
    """formats.md: "x_j = splitmix64(splitmix64(seed xor splitmix64(id)) + j mod 2^64);
    value_j = ((x_j >> 40)·2^-23 − 1)·scale, float32".

    The bracket is exact in float32, so only the product with the float32 scale rounds.
    """
    base = splitmix64((seed & _M64) ^ splitmix64(row_id))
    width = f32(scale)
    return tuple(mul((splitmix64((base + j) & _M64) >> 40) * 2.0**-23 - 1.0, width) for j in range(dim))
