"""Fixed thresholds per measure: a node over any of them deviates.

Invariant: a threshold lies inside its measure's range and says which side is bad, so a setting
that could never, or would always, speak is refused by name.
Source: US 2025/0265235 A1, second evaluation condition.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from driftline.drift.measures import NODE_MEASURES
from driftline.errors import ConfigError

_BY_NAME = {measure.name: measure for measure in NODE_MEASURES}
LOW_IS_BAD = frozenset({"jaccard", "rank_biased_overlap"})
"""Similarities: a node deviates below the threshold. For all other measures: above."""


@dataclass(frozen=True, slots=True)
class Thresholds:
    """Limits by name of measure; none set means that this rule never speaks."""

    limits: Mapping[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name, limit in self.limits.items():
            measure = _BY_NAME.get(name)
            if measure is None:
                raise ConfigError(f"threshold {name!r}: no such measure; known: {', '.join(_BY_NAME)}")
            if not measure.low <= limit <= measure.high or not np.isfinite(limit):
                raise ConfigError(
                    f"threshold {name}={limit}: must be finite and from {measure.low:g} to {measure.high:g}"
                    f" ({measure.unit})"
                )

    def over(self, measures: Mapping[str, NDArray[np.float64]]) -> NDArray[np.bool_]:
        """Return which nodes (n,) are beyond any limit; NaN is beyond none.

        Raises ConfigError for a limit on a measure that was not taken.
        """
        size = len(next(iter(measures.values()))) if measures else 0
        beyond = np.zeros(size, np.bool_)
        for name, limit in self.limits.items():
            if name not in measures:
                raise ConfigError(
                    f"threshold {name}: that measure was not taken; taken: {', '.join(measures)}"
                )
            values = measures[name]
            beyond |= (values < limit) if name in LOW_IS_BAD else (values > limit)
        return beyond
