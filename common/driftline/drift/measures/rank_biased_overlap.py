"""Rank-biased overlap: similarity of the two lists as rankings, nearest first.

Invariant: in [0, 1]; 1 exactly for equal lists in equal order, 0 if they have nobody in common.
An exchange among the nearest weighs more than one at the end.
Source: Webber, Moffat, Zobel, "A similarity measure for indefinite rankings", TOIS 2010, eq. 32
(extrapolated, both lists seen to the same depth).
"""

from __future__ import annotations

import numpy as np

from driftline.drift.measures.base import Doubles, Measure, Pair

PERSISTENCE = 0.9


def rank_biased_overlap(pair: Pair) -> Doubles:
    """Return (1−p)·Σ_d A_d·p^(d−1) + A_k·p^k, A_d the share in common of the first d; p = .9.

    k is the length of the shorter list; two empty lists agree (1), an empty and another do not (0).
    """
    old, new = pair.old_lists, pair.new_lists
    width = min(old.ids.shape[1], new.ids.shape[1])
    both = (old.ids[:, :, None] == new.ids[:, None, :]) & old.listed[:, :, None] & new.listed[:, None, :]
    depth = np.minimum(old.counts, new.counts)
    total = np.zeros(len(old.ids))
    at_depth = np.zeros(len(old.ids))
    for d in range(1, width + 1):
        agreement = both[:, :d, :d].any(axis=2).sum(axis=1) / d
        total += np.where(d <= depth, (1 - PERSISTENCE) * agreement * PERSISTENCE ** (d - 1), 0.0)
        at_depth = np.where(d == depth, agreement, at_depth)
    total += at_depth * PERSISTENCE**depth
    empty = (old.counts == 0) & (new.counts == 0)
    return np.where(empty, 1.0, np.where(depth == 0, 0.0, total))


MEASURE = Measure(
    "rank_biased_overlap",
    "agreement of the two rankings, weighted towards the nearest (p = .9)",
    0,
    1,
    "share",
    "Webber, Moffat, Zobel, TOIS 2010",
    rank_biased_overlap,
)
