"""What is usual for a tick statistic at this time of day, and how its ticks hang together.

Invariant: `residual` of healthy ticks is centred at 0 with robust spread 1, has no first-order
autocorrelation left, and depends on nothing but the fit, the tick and the tick before. Medians
throughout: a few bad ticks in the window do not move the fit.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Doubles = NDArray[np.float64]
_MAD = 1.4826  # median absolute deviation to standard deviation of a normal distribution
_LEAST_DAYS = 3  # of history before the time of day is taken into account
_SHARE_OF_DAY = 48  # ± half an hour around a time of day counts as that time of day ...
_LEAST_NEAR = (
    60  # ... or more, up to two hours, until so many ticks are near: medians of few follow their noise
)
_STEPS = 6  # times of day fitted per half window
_WHOLE = (
    100  # a spread counts for its ticks, the overall one for this many: a small one by chance is dangerous
)


@dataclass(frozen=True, slots=True, eq=False)
class Centring:
    """One statistic's fit."""

    middle: Doubles  # (ticks per day,) or (1,) where the history is too short for the time of day
    spread: Doubles  # the same shape, positive
    phi: float  # autocorrelation of neighbouring ticks
    scale: float  # of the prewhitened residuals

    def standing(self, tick: int, value: float) -> float:
        """Return the value, centred and scaled for its time of day."""
        phase = tick % len(self.middle)
        return float((value - self.middle[phase]) / self.spread[phase])

    def residual(self, now: float, before: float | None) -> float:
        """Return what of the standing `now` does not follow from the one `before`; None: no tick before."""
        if before is None:
            return now * float(np.sqrt(1 - self.phi**2)) / self.scale
        return (now - self.phi * before) / self.scale


def fit(ticks: NDArray[np.int64], values: Doubles, ticks_per_day: float) -> tuple[Centring, Doubles]:
    """Return the fit to a history (t,), and its residuals (t,) in order of time, the first one included."""
    period = round(ticks_per_day)
    floor = 1e-9 + 1e-6 * float(np.median(np.abs(values))) if len(values) else 1e-9
    if period < 2 or len(values) < _LEAST_DAYS * period:
        middle = np.array([np.median(values)])
        spread, near = np.array([_MAD * np.median(np.abs(values - middle[0]))]), np.array([len(values)])
    else:
        middle, spread, near = _by_time_of_day(ticks % period, values, period)
    whole = _MAD * float(np.median(np.abs(values - middle[ticks % len(middle)])))
    spread = np.sqrt((near * spread**2 + _WHOLE * whole**2) / (near + _WHOLE))
    spread = np.maximum(spread, floor)
    z = (values - middle[ticks % len(middle)]) / spread[ticks % len(spread)]
    follows = np.diff(ticks) == 1
    kept = np.clip(z, -5, 5)  # an outlier must not decide what is usual
    power = float((kept**2).mean())
    phi = float((kept[1:] * kept[:-1])[follows].mean()) / power if power > 0 and follows.any() else 0.0
    phi = float(np.clip(phi, 0.0, 0.95))
    rest = z * np.sqrt(1 - phi**2)
    rest[1:][follows] = z[1:][follows] - phi * z[:-1][follows]
    scale = _MAD * float(np.median(np.abs(rest - np.median(rest)))) or 1.0
    return Centring(middle, spread, phi, max(scale, 1e-9)), rest / max(scale, 1e-9)


def _by_time_of_day(
    phase: NDArray[np.int64], values: Doubles, period: int
) -> tuple[Doubles, Doubles, NDArray[np.int64]]:
    """Return median, spread and number of the values near each time of day."""
    order = np.argsort(phase, kind="stable")
    phase, values = phase[order], values[order]
    # Once around before and after: midnight is near to itself.
    phase = np.concatenate([phase - period, phase, phase + period])
    values = np.tile(values, 3)
    days = len(values) / 3 / period
    reach = max(1, round(period / _SHARE_OF_DAY), min(period // 12, round(_LEAST_NEAR / days / 2)))
    # Neighbouring times of day share most of their ticks: one stands for those around it.
    stride = max(1, reach // _STEPS)
    times = np.arange(stride // 2, period + stride, stride)
    begin = np.searchsorted(phase, times - reach, side="left")
    end = np.searchsorted(phase, times + reach, side="right")
    middle, spread = np.full(len(times), float(np.median(values))), np.zeros(len(times))
    count = end - begin
    # Windows of one size at once: those of a history without gaps are all of one size.
    for size in np.unique(count[count > 0]).tolist():
        at = np.flatnonzero(count == size)
        here = values[begin[at][:, None] + np.arange(size)]
        middle[at] = np.median(here, axis=1)
        spread[at] = _MAD * np.median(np.abs(here - middle[at][:, None]), axis=1)
    nearest = np.arange(period) // stride
    return middle[nearest], spread[nearest], count[nearest]
