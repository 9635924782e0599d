"""Which rows a report looks at, of tables of any size.

Invariant: by ids alone, so the same rows are chosen whatever order a store gives them in, and rows
that are in both of two versions stay chosen in both. Choosing by a hash is choosing at random.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from driftline.ids import splitmix64

Ids = NDArray[np.uint64]
_SALT = np.uint64(0x7265706F7274)  # not the hash that chooses shards


@dataclass(frozen=True, slots=True, eq=False)
class Sizes:
    """How many rows are looked at."""

    points: int = 2_000  # drawn, chosen at random
    farthest: int = 200  # drawn besides: those that moved farthest of all
    pool: int = 20_000  # among which neighbours are looked for; fewer than 2^16 - 1


@dataclass(frozen=True, slots=True, eq=False)
class Chosen:
    """The rows of a report; all ascending."""

    drawn: Ids
    sample: Ids  # of `drawn`, those chosen at random
    pool: Ids  # of both versions; holds `drawn`


def chosen_at_random(ids: Ids, count: int) -> Ids:
    """Return `count` of `ids`, ascending; all if there are no more."""
    if len(ids) <= count:
        return np.sort(ids)
    mixed = splitmix64(ids ^ _SALT)
    return np.sort(ids[np.argpartition(mixed, count - 1)[:count]])


def choose(common: Ids, either: Ids, farthest: Ids, sizes: Sizes) -> Chosen:
    """Return the rows to look at.

    `common`: in both versions; `either`: in one of them at least; `farthest`: changed rows, those that
    moved farthest first. Rows in one version only are neighbours and never drawn.
    """
    sample = chosen_at_random(common, sizes.points)
    drawn = np.union1d(sample, farthest[: sizes.farthest])
    if len(either) <= sizes.pool:
        pool = np.sort(either)
    else:
        others = np.setdiff1d(either, drawn, assume_unique=True)
        pool = np.union1d(drawn, chosen_at_random(others, sizes.pool - len(drawn)))
    return Chosen(drawn, sample, pool)
