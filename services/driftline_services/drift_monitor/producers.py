"""What producers sent, as barriers tell it, and which of them stand out.

Invariant: pure. A producer is suspected only by figures: the norm of its gradients against its own
past where that is known, else against the others'.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import isfinite, sqrt
from statistics import median

FACTOR = 4.0
"""A producer stands out whose gradients are this much longer than usual."""


@dataclass(frozen=True, slots=True)
class Figures:
    """What a producer sent in a tick."""

    rows: int
    squares: float  # sum of the squared norms of its gradient rows; infinite where one is not finite
    largest: float  # the largest root mean square of a frame's rows

    @property
    def norm(self) -> float:
        """Root mean square of the norms of its gradient rows."""
        return sqrt(self.squares / self.rows) if self.rows else 0.0

    @property
    def told(self) -> tuple[int, float | None, float | None]:
        """Rows, mean norm, largest frame's; None where that is not finite."""
        return self.rows, _finite(self.norm), _finite(self.largest)


def merged(bodies: Iterable[Mapping[str, object]]) -> dict[str, Figures]:
    """Return the figures of all producers in the bodies of several shards' barriers; nonsense is left out."""
    found: dict[str, Figures] = {}
    for body in bodies:
        for name, said in body.items():
            if not isinstance(said, list) or len(said) != 3 or not isinstance(said[0], int):
                continue
            squares, largest = (float(x) if isinstance(x, int | float) else float("inf") for x in said[1:])
            before = found.get(name, Figures(0, 0.0, 0.0))
            found[name] = Figures(
                before.rows + said[0], before.squares + squares, max(before.largest, largest)
            )
    return found


def suspects(healthy: Sequence[Mapping[str, float]], bad: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Return the producers that stand out in `bad` ticks, each with the factor by which.

    Parameters
    ----------
    healthy, bad: mean norm by producer, one mapping per tick.

    Examples
    --------
    >>> suspects([{"a": 1.0, "b": 1.0}] * 5, [{"a": 1.2, "b": 60.0}])
    {'b': 60.0}
    >>> suspects([{"a": 1.0}] * 5, [{"a": 1.0, "new": 50.0}])
    {'new': 50.0}
    """
    usual = [norm for tick in healthy for norm in tick.values() if isfinite(norm) and norm > 0]
    if not usual:
        return {}
    overall = median(usual)
    found: dict[str, float] = {}
    for name in sorted({name for tick in bad for name in tick}):
        worst = max(tick[name] for tick in bad if name in tick)
        factor = worst / overall
        if not isfinite(worst) or factor >= FACTOR:
            found[name] = factor if isfinite(factor) else float("inf")
    return found


def _finite(value: float) -> float | None:
    return value if isfinite(value) else None
