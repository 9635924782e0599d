"""Tiers: how exactly a row is stored, from bit for bit down to one byte a number.

Invariant: a tier is left downwards only. What is read of a lossy tier differs from what was
written by at most the error that is recorded with it, number by number.

A lossy row is q[d] of one or two bytes and a scale: value = q x scale, scale = the row's largest
magnitude / 127 or 32767. So a row of large numbers does not blur one of small ones.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from driftline.errors import InputError, LossyVersionError

if TYPE_CHECKING:  # manifests list segments, and segments have tiers
    from driftline.versions.manifest import Manifest

EXACT, INT16, INT8 = "exact", "int16", "int8"
TIERS = (INT8, INT16, EXACT)
_WIDTH: dict[str, np.dtype[np.signedinteger]] = {INT8: np.dtype(np.int8), INT16: np.dtype("<i2")}
_MOST = {INT8: 127, INT16: 32767}


@dataclass(frozen=True, slots=True)
class Quantised:
    """Rows of a lossy tier."""

    codes: NDArray[np.uint8]  # (n, d x width): little-endian whole numbers
    scale: NDArray[np.float32]  # (n,)
    error: float  # largest difference of a number from what it was


def level(tier: str) -> int:
    """Return the rank of a tier, the more exact the greater. Raises InputError."""
    if tier not in TIERS:
        raise InputError(f"tier {tier!r}: one of {', '.join(reversed(TIERS))}")
    return TIERS.index(tier)


def quantise(values: NDArray[np.float32], tier: str) -> Quantised:
    """Return rows, (n, d) and finite, in a lossy tier. Raises InputError if a number is not finite."""
    if not np.isfinite(values).all():
        raise InputError(f"tier {tier}: a row holds a number that is not finite; keep its version exact")
    most = _MOST[tier]
    peak = np.abs(values).max(1, initial=np.float32(0))
    scale = (peak.astype(np.float64) / most).astype(np.float32)
    divisor = np.where(scale > 0, scale, 1).astype(np.float64)
    codes = np.rint(np.clip(values / divisor[:, None], -most, most)).astype(_WIDTH[tier])
    codes[scale == 0] = 0
    packed = codes.view(np.uint8).reshape(len(values), values.shape[1] * codes.itemsize)
    found = dequantise(packed, scale, tier)
    error = float(np.abs(found.astype(np.float64) - values).max(initial=0.0))
    return Quantised(packed, scale, error)


def dequantise(codes: NDArray[np.uint8], scale: NDArray[np.float32], tier: str) -> NDArray[np.float32]:
    """Return the rows, (n, d), of a lossy tier."""
    whole = np.ascontiguousarray(codes).view(_WIDTH[tier])
    widest = np.finfo(np.float32).max
    with np.errstate(over="ignore"):  # a scale rounded upwards, at the edge of float32
        found = whole.astype(np.float32) * scale[:, None]
    return np.asarray(np.clip(found, -widest, widest), np.float32)


def shrinks(columns: int, tier: str) -> bool:
    """Return whether that many float32 take less room in a lossy tier."""
    return columns * _WIDTH[tier].itemsize + 4 < columns * 4


def lossy_tier(manifest: Manifest) -> str | None:
    """Return the least exact tier that rows of a version are in, or may be by its class; None if exact.

    A class is enough: what it allows may be done by any later compaction.
    """
    tiers = {manifest.retention}
    tiers |= {each.tier for table in manifest.tables.values() for p in table.parts for each in p.segments}
    return min(tiers - {EXACT}, key=level, default=None)


def largest_error(manifest: Manifest) -> float:
    """Return the largest error that is recorded with the rows and states a version may read."""
    return max(
        (
            max(each.error, each.state_error)
            for table in manifest.tables.values()
            for part in table.parts
            for each in part.segments
        ),
        default=0.0,
    )


def check_exact(manifest: Manifest, purpose: str) -> None:
    """Refuse a version whose bits are gone for what needs them. Raises LossyVersionError."""
    tier = lossy_tier(manifest)
    if tier is not None:
        raise LossyVersionError(
            f"version {manifest.version} is stored in tier {tier}, up to {largest_error(manifest):.3g} off: "
            f"it can be read and compared, but {purpose} needs bits that are gone; name an exact one"
        )
