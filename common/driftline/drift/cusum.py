"""Residual CUSUM: early warnings that cost nothing when wrong.

Invariant: the level is chosen so that the calibration residuals themselves would have warned about
once per `every` ticks; a warning is never an action. Source: Page, "Continuous inspection schemes",
Biometrika 1954.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

_DRIFT = 0.5  # residual standard deviations that are let pass per tick


def advance(before: float, residual: float) -> float:
    """Return max(0, before + residual − .5)."""
    return max(0.0, before + residual - _DRIFT)


def level(residuals: NDArray[np.float64], every: float) -> float:
    """Return the height that excursions over `residuals`, in order of time, pass once per `every` ticks.

    With a history shorter than `every`, a little beyond the highest excursion seen.
    """
    peaks, height, peak = [], 0.0, 0.0
    for residual in residuals.tolist():
        height = advance(height, residual)
        if height == 0.0 and peak > 0.0:
            peaks.append(peak)
            peak = 0.0
        peak = max(peak, height)
    peaks.append(peak)
    allowed = int(len(residuals) / every)
    ordered = sorted(peaks, reverse=True)
    return ordered[allowed] if 0 < allowed < len(ordered) else 1.1 * ordered[0] + 1.0
