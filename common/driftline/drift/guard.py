"""The instant guard: what no healthy tick does, seen in the very tick.

Invariant: needs no calibration and no history. It speaks for numbers that are not finite, for rows
beyond hard limits, and for an explosion of norms; for nothing else.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from driftline.drift.measures.base import Ids
from driftline.drift.observation import Observation
from driftline.drift.settings import GuardSettings


@dataclass(frozen=True, slots=True, eq=False)
class Alarm:
    """Why the guard speaks, and the rows."""

    why: str
    ids: Ids


def guard(seen: Observation, settings: GuardSettings) -> Alarm | None:
    """Return the guard's alarm, None if all is within limits."""
    if len(seen.broken):
        return Alarm(f"{len(seen.broken)} rows with NaN or infinity", seen.broken)
    long = seen.norms > settings.largest_norm
    if long.any():
        return Alarm(f"{int(long.sum())} rows longer than {settings.largest_norm:g}", seen.ids[long])
    far = seen.measures["offset_distance"] > settings.largest_offset
    if far.any():
        return Alarm(f"{int(far.sum())} rows moved by more than {settings.largest_offset:g}", seen.ids[far])
    known = seen.updates >= settings.known_after
    with np.errstate(invalid="ignore"):
        exploding = known & (seen.measures["norm_ratio"] >= settings.norm_factor)
    least = max(settings.exploding_rows, settings.exploding_share * int(known.sum()))
    if exploding.any() and int(exploding.sum()) >= least:
        return Alarm(
            f"{int(exploding.sum())} of {int(known.sum())} known rows grew by a factor of"
            f" {settings.norm_factor:g} or more",
            seen.ids[exploding],
        )
    return None
