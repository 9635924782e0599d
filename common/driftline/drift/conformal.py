"""Conformal p-values of nodes within strata, and Benjamini–Hochberg over a tick.

Invariant: for a node exchangeable with those of its stratum's calibration, P(p ≤ x) ≤ x; no p is below
1/(n + 1). A stratum keeps its count and its largest scores only: below those, p is reported as 1, which
errs to the safe side. Sources: Vovk, Gammerman, Shafer, Algorithmic Learning in a Random World, 2005;
Benjamini, Hochberg, JRSS B 1995; Bates et al., "Testing for outliers with conformal p-values", Annals
of Statistics 2023 (such p-values are positively dependent, so the procedure keeps its level).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Doubles = NDArray[np.float64]
Strata = NDArray[np.int64]
TAIL = 1_000
"""Largest scores kept per stratum."""


@dataclass(frozen=True, slots=True, eq=False)
class Tails:
    """Calibration scores of all strata, largest first; -inf where a stratum has fewer."""

    counts: NDArray[np.int64]  # (strata,)
    largest: NDArray[np.float32]  # (strata, TAIL), descending

    @classmethod
    def empty(cls, strata: int) -> Tails:
        """Return strata that have seen nothing."""
        return cls(np.zeros(strata, np.int64), np.full((strata, TAIL), -np.inf, np.float32))

    def with_scores(self, strata: Strata, scores: Doubles) -> Tails:
        """Return the tails with scores (n,) of nodes in `strata` (n,) added."""
        counts = self.counts + np.bincount(strata, minlength=len(self.counts))
        values = scores.astype(np.float32)
        enters = values > self.largest[strata, -1]
        strata, values = strata[enters], values[enters]
        order = np.lexsort((-values, strata))
        strata, values = strata[order], values[order]
        largest = self.largest.copy()
        for stratum in np.unique(strata).tolist():
            begin, end = np.searchsorted(strata, [stratum, stratum + 1])
            both = np.concatenate([largest[stratum], values[begin:end]])
            largest[stratum] = -np.sort(-both)[:TAIL]
        return Tails(counts, largest)

    def p_values(self, strata: Strata, scores: Doubles) -> Doubles:
        """Return (1 + number of calibration scores ≥ score) / (n + 1) of each node; 1 below the tail."""
        found = np.ones(len(scores))
        values = scores.astype(np.float32)
        for stratum in np.unique(strata).tolist():
            here = strata == stratum
            tail, count = self.largest[stratum], int(self.counts[stratum])
            beyond = TAIL - np.searchsorted(tail[::-1], values[here], side="left")
            p = (1 + beyond) / (count + 1)
            found[here] = np.where((beyond >= TAIL) & (count > TAIL), 1.0, np.minimum(p, 1.0))
        return found


def benjamini_hochberg(p: Doubles, level: float) -> NDArray[np.bool_]:
    """Return which of p (m,) are rejected at false discovery rate `level`; none of none."""
    if not len(p):
        return np.zeros(0, np.bool_)
    order = np.argsort(p, kind="stable")
    below = p[order] <= level * np.arange(1, len(p) + 1) / len(p)
    rejected = np.zeros(len(p), np.bool_)
    if below.any():
        rejected[order[: int(np.flatnonzero(below)[-1]) + 1]] = True
    return rejected
