"""Domain-classifier AUC: can old and new rows be told apart?

Invariant: in [0, 1], about .5 if they cannot; judged on rows the classifier did not learn from.
The classifier is ridge regression on the rows and their squares: a closed form, so a seed and the
rows fix the result. Source: Lopez-Paz, Oquab, "Revisiting classifier two-sample tests", ICLR 2017.
"""

from __future__ import annotations

import numpy as np

from driftline.drift.measures.base import Doubles, Floats

_RIDGE = 1e-3


def domain_auc(old: Floats, new: Floats, seed: int) -> float:
    """Return the AUC of telling `new` (m, d) from `old` (n, d), in two halves; .5 below 4 rows.

    Row i of both is taken into the same half: nodes are learned or judged, never both.
    """
    rows = min(len(old), len(new))
    if rows < 4:
        return 0.5
    order = np.random.default_rng(seed).permutation(rows)
    halves = (order[: rows // 2], order[rows // 2 :])
    aucs = [
        _auc(*_scores(old[learn], new[learn], old[judge], new[judge]))
        for learn, judge in (halves, halves[::-1])
    ]
    return float(np.mean(aucs))


def _scores(old: Floats, new: Floats, held_old: Floats, held_new: Floats) -> tuple[Doubles, Doubles]:
    x = np.concatenate([_features(old), _features(new)])
    middle, spread = x.mean(axis=0), x.std(axis=0)
    spread[spread == 0] = 1
    x = (x - middle) / spread
    y = np.repeat([-1.0, 1.0], [len(old), len(new)])
    weights = np.linalg.solve(x.T @ x + _RIDGE * len(x) * np.eye(x.shape[1]), x.T @ y)
    return (
        (_features(held_old) - middle) / spread @ weights,
        (_features(held_new) - middle) / spread @ weights,
    )


def _features(rows: Floats) -> Doubles:
    x = rows.astype(np.float64)
    return np.concatenate([x, x * x], axis=1)


def _auc(low: Doubles, high: Doubles) -> float:
    """Return P(high > low) + P(equal)/2."""
    ordered = np.sort(low)
    below = np.searchsorted(ordered, high, side="left") + np.searchsorted(ordered, high, side="right")
    return float(below.mean() / (2 * len(low)))
