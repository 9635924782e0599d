"""Which fault comes when: a list that its seed fixes.

Invariant: the same seed and mix give the same schedule, on any machine.
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Fault:
    """One fault; `gap` and `down` in seconds, `at` a number in [0, 1) for whatever the fault chooses."""

    kind: str
    gap: float  # from the end of the fault before
    down: float  # from the fault to its repair
    at: float


def schedule(
    seed: int,
    mix: Mapping[str, int],
    *,
    gap: tuple[float, float] = (0.3, 3.0),
    down: tuple[float, float] = (0.0, 1.0),
) -> list[Fault]:
    """Return `mix[kind]` faults of each kind, shuffled.

    A third of the gaps and of the down times are next to nothing: faults that meet a
    recovery under way are the ones that find something.
    """
    rng = random.Random(seed)
    kinds = [kind for kind, count in sorted(mix.items()) for _ in range(count)]
    rng.shuffle(kinds)
    return [Fault(kind, _draw(rng, *gap), _draw(rng, *down), rng.random()) for kind in kinds]


def _draw(rng: random.Random, low: float, high: float) -> float:
    return low if rng.random() < 1 / 3 else rng.uniform(low, high)
