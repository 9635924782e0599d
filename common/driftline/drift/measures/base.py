"""What every measure of a node takes and gives.

Invariant: a measure is a pure function of matched columns: row i of every array is the same
node in both versions.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Doubles = NDArray[np.float64]
Ids = NDArray[np.uint64]


@dataclass(frozen=True, slots=True, eq=False)
class Lists:
    """Neighbours of some nodes, nearest first; `listed` says where one is: a prefix of each line."""

    ids: Ids  # (n, k)
    listed: NDArray[np.bool_]  # (n, k)

    @property
    def counts(self) -> NDArray[np.int64]:
        """How many neighbours each node has (n,)."""
        return np.asarray(self.listed.sum(axis=1), np.int64)


@dataclass(frozen=True, slots=True, eq=False)
class Pair:
    """The same nodes before and after."""

    old: Floats  # (n, d) vectors
    new: Floats  # (n, d); the common rotation is taken out where the caller wants that
    old_lists: Lists
    new_lists: Lists
    kth: Floats  # (n,) distance to the K-th neighbour before, in the units of |new - old|


@dataclass(frozen=True, slots=True)
class Measure:
    """A measure and what there is to know of it."""

    name: str
    definition: str
    low: float
    high: float
    unit: str
    source: str
    of: Callable[[Pair], Doubles]


def shared(one: Lists, other: Lists) -> NDArray[np.int64]:
    """Return how many neighbours (n,) the two lists of each node have in common."""
    same = (one.ids[:, :, None] == other.ids[:, None, :]) & one.listed[:, :, None] & other.listed[:, None, :]
    return np.asarray(same.any(axis=2).sum(axis=1), np.int64)


def lengths(vectors: Floats) -> Doubles:
    """Return |v| of each row (n,), summed in float64."""
    return np.asarray(np.sqrt(np.einsum("nd,nd->n", vectors, vectors, dtype=np.float64)), np.float64)


def ratio(
    above: Doubles | NDArray[np.int64], below: Doubles | NDArray[np.int64], otherwise: float
) -> Doubles:
    """Return above / below, `otherwise` where below is 0."""
    out = np.full(np.shape(above), otherwise, np.float64)
    np.divide(above, below, out=out, where=np.asarray(below) != 0)
    return out
