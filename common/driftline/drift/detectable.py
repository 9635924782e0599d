"""How large a fault must be to be found, with the calibration so far.

Invariant: an answer of infinity means that no fault of that kind can be found yet, whatever its size.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import exp, inf, log

import numpy as np

from driftline.drift.calibration import Calibration
from driftline.drift.evalue import power_mixture
from driftline.drift.nodes import detectable
from driftline.drift.scores import CHANNELS, DECILES
from driftline.drift.settings import JudgeSettings


@dataclass(frozen=True, slots=True)
class Detectable:
    """Least effects."""

    shift: dict[str, float]  # per channel, in its own units: found within `within` ticks on average
    within: int
    nodes: int  # that must deviate at once in a tick of usual size
    node_factor: float  # step against the tick's median above which a node stands out


def least_effects(known: Calibration, settings: JudgeSettings, within: int = 60) -> Detectable:
    """Return the least effects that would be found within `within` ticks."""
    need = log(len(CHANNELS) * settings.ticks_per_alarm) / within
    shifts = {}
    for name, at in zip(CHANNELS, range(len(CHANNELS)), strict=True):
        shifts[name] = inf
        if not known.fits:
            continue
        fit = known.fits[at]
        for shift in np.geomspace(0.05, 500, 81):
            residuals = fit.residuals + shift * (1 - fit.centring.phi) / fit.centring.scale
            beyond = len(residuals) - np.searchsorted(fit.residuals, residuals, side="left")
            each = power_mixture(np.minimum(1, (1 + beyond + np.sqrt(1 + beyond)) / (len(residuals) + 1)))
            if float(np.mean(np.log(each))) >= need:
                shifts[name] = float(shift * np.median(fit.centring.spread))
                break
    count = max(1, round(known.usual_rows))
    highest = float(known.moved.largest[DECILES, 0])
    factor = exp(max(highest, log(settings.least_effect))) if np.isfinite(highest) else inf
    return Detectable(shifts, within, detectable(known, count, settings), factor)
