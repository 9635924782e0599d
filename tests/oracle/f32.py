"""Float32 arithmetic on Python floats, one number at a time.

Invariant: every result is the float32 that IEEE 754 demands. A double has more
than 2·24 + 2 bits, so doing + − × ÷ √ in double and rounding once to float32
cannot round twice (Figueroa, "When is double rounding innocuous?", 1995).
"""

from __future__ import annotations

import math
import struct
from collections.abc import Iterable, Sequence
from ctypes import c_float

F32 = float
"""A Python float whose value is a float32."""

ZERO: F32 = 0.0
ONE: F32 = 1.0


def f32(x: float) -> F32:
    """Round a double to the nearest float32, ties to even; overflow gives an infinity."""
    return c_float(x).value


def add(a: F32, b: F32) -> F32:
    return f32(a + b)


def sub(a: F32, b: F32) -> F32:
    return f32(a - b)


def mul(a: F32, b: F32) -> F32:
    return f32(a * b)


def div(a: F32, b: F32) -> F32:
    """Divide as IEEE 754 does: by zero gives an infinity or NaN where Python would raise."""
    if b != 0.0:
        return f32(a / b)
    if a == 0.0 or math.isnan(a):
        return math.nan
    return math.copysign(math.inf, a) * math.copysign(1.0, b)


def sqrt(a: F32) -> F32:
    """Take the square root; of a negative number it is NaN, of -0 it is -0."""
    return f32(math.sqrt(a)) if a >= 0.0 else math.nan


def tree_sum(values: Sequence[F32]) -> F32:
    """formats.md: "pad with +0 to a power of two, then x[:h] + x[h:] until one is left"."""
    width = 1
    while width < len(values):
        width *= 2
    level = list(values) + [ZERO] * (width - len(values))
    while width > 1:
        width //= 2
        level = [add(level[i], level[width + i]) for i in range(width)]
    return level[0]


def all_finite(values: Iterable[F32]) -> bool:
    return all(math.isfinite(x) for x in values)


def to_bytes(values: Sequence[F32]) -> bytes:
    """Return the little-endian float32 bits."""
    return struct.pack(f"<{len(values)}f", *values)


def from_bytes(data: bytes) -> tuple[F32, ...]:
    return struct.unpack(f"<{len(data) // 4}f", data)


def from_hex_bits(text: str) -> F32:
    """Read a float32 from its 8 hex digits, most significant first: 3f800000 is 1."""
    if len(text) != 8 or any(c not in "0123456789abcdefABCDEF" for c in text):
        raise ValueError(f"not 8 hex digits: {text!r}")
    value: F32 = struct.unpack(">f", bytes.fromhex(text))[0]
    return value


def to_hex_bits(value: float) -> str:
    return struct.pack(">f", f32(value)).hex()
