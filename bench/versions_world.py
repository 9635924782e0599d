"""The table whose versions are stored: the same rows and changes for every side, from a seed.

Invariant: a world is told by its plan alone. Ids are dense and given out in order, so that a
side without a dictionary may take them for row numbers; rows that were born later are not
changed again, so that a side may keep them in files of their own.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

DIM = 64
QUERY = 1_000  # ids per look-up
BRANCH = "exp"
ROW_BYTES = 4 * DIM


@dataclass(frozen=True, slots=True)
class Plan:
    """What is stored."""

    rows: int = 1_000_000
    versions: int = 50
    branch: int = 5  # versions of a second branch, which leaves the first in the middle
    share: float = 0.02  # of the rows, changed by each version
    inserts: float = 0.05  # of the changed rows: born
    deletes: float = 0.01  # of the changed rows: deleted
    law: str = "uniform"
    seed: int = 1

    @property
    def changed(self) -> int:
        """Rows that a version writes, births among them."""
        return max(20, round(self.rows * self.share))

    @property
    def middle(self) -> int:
        """The version that the second branch leaves from."""
        return self.versions // 2


@dataclass(frozen=True, slots=True)
class Step:
    """One version: what it changes in the version before it."""

    number: int  # from 1; those of the branch go on from the last one of the main line
    branch: str
    ids: NDArray[np.int64]  # updated, increasing
    values: NDArray[np.float32]
    new_ids: NDArray[np.int64]
    new_values: NDArray[np.float32]
    dead: NDArray[np.int64]

    @property
    def stored(self) -> int:
        """Rows that have to be stored."""
        return len(self.ids) + len(self.new_ids)


class World:
    """The table as it goes on; `values[alive]` are its rows."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self._rng = np.random.default_rng(plan.seed)
        room = plan.rows + (plan.versions + plan.branch) * plan.changed
        self.values = np.zeros((room, DIM), np.float32)
        self.values[: plan.rows] = self._rng.standard_normal((plan.rows, DIM), np.float32) * np.float32(0.05)
        self.alive = np.zeros(room, np.bool_)
        self.alive[: plan.rows] = True
        self.next = plan.rows
        # the popular ids are anywhere: neither side may gain from their order
        self._popularity = self._rng.permutation(plan.rows)

    def base(self) -> NDArray[np.float32]:
        """Return the rows of version 0; ids are their places."""
        return self.values[: self.plan.rows]

    def ids(self) -> NDArray[np.int64]:
        """Return the ids that are alive, increasing."""
        return np.flatnonzero(self.alive)

    def steps(self) -> Iterator[Step]:
        """Yield the versions of the main line, then, from the middle again, those of the branch."""
        plan = self.plan
        kept = None
        for number in range(1, plan.versions + 1):
            yield self._step(number, "main")
            if number == plan.middle:
                kept = self.values.copy(), self.alive.copy()
        assert kept is not None
        self.values, self.alive = kept
        for number in range(plan.versions + 1, plan.versions + plan.branch + 1):
            yield self._step(number, BRANCH)

    def _step(self, number: int, branch: str) -> Step:
        plan, rng = self.plan, self._rng
        born = round(plan.changed * plan.inserts)
        chosen = self._chosen(number, plan.changed - born)
        change = rng.standard_normal((len(chosen), DIM), np.float32) * np.float32(0.0005)
        self.values[chosen] += change
        new = np.arange(self.next, self.next + born)
        self.next += born
        self.values[new] = rng.standard_normal((born, DIM), np.float32) * np.float32(0.05)
        self.alive[new] = True
        left = np.flatnonzero(self.alive[: plan.rows])
        dead = np.sort(rng.choice(left, max(1, round(plan.changed * plan.deletes)), replace=False))
        dead = np.setdiff1d(dead, chosen, assume_unique=True)
        self.alive[dead] = False
        return Step(number, branch, chosen, self.values[chosen], new, self.values[new], dead)

    def _chosen(self, number: int, count: int) -> NDArray[np.int64]:
        plan, rng = self.plan, self._rng
        alive = self.alive[: plan.rows]
        if plan.law == "contiguous":
            candidates = np.roll(np.arange(plan.rows), -((number - 1) * plan.changed % plan.rows))
            return np.sort(candidates[alive[candidates]][:count])
        if plan.law == "uniform":
            return np.sort(rng.choice(np.flatnonzero(alive), count, replace=False))
        # the largest of log-weight + Gumbel noise are a draw without replacement (Efraimidis, Spirakis)
        keys = -1.2 * np.log(np.arange(1, plan.rows + 1)) + rng.gumbel(size=plan.rows)
        ids = self._popularity[np.argsort(-keys)]
        return np.sort(ids[alive[ids]][:count])


def queries(plan: Plan, alive: NDArray[np.bool_], count: int) -> list[NDArray[np.int64]]:
    """Return sets of ids to look up, alive all of them."""
    rng = np.random.default_rng(plan.seed + 1)
    ids = np.flatnonzero(alive)
    return [rng.choice(ids, min(QUERY, len(ids)), replace=False) for _ in range(count)]
