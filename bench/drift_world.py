"""Rows that move as embeddings do, and the truth about their neighbours.

200 clusters of very different sizes with falling spectra; each tick some rows take a step of .3 of
their distance to the K-th neighbour, and one in twenty jumps to another place.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

DIMS, NEIGHBOURS = 64, 10
Floats = NDArray[np.float32]
Rows = NDArray[np.int64]
_CLUSTERS, _STEP, _JUMPS = 200, 0.3, 0.05
_BLOCK = 1 << 22
_RANDOM, _NEAR = 1_000, 1_500  # rows looked at by brute force at a check


@dataclass(frozen=True, slots=True)
class Plan:
    """One configuration; `changed` rows per tick."""

    rows: int
    metric: str  # "l2" or "cosine"
    changed: int
    zipf: bool
    ticks: int
    checks: int  # ticks at which recall is measured


class World:
    """The rows, moving."""

    def __init__(self, plan: Plan, seed: int = 0) -> None:
        self.plan = plan
        rng = np.random.default_rng(seed)
        centres = rng.normal(size=(_CLUSTERS, DIMS)).astype(np.float32)
        sizes = rng.zipf(1.8, _CLUSTERS).clip(1, 60).astype(float)
        of = rng.choice(_CLUSTERS, plan.rows, p=sizes / sizes.sum())
        spectrum = np.arange(1, DIMS + 1) ** -0.6
        spectrum = (0.6 * spectrum / np.sqrt((spectrum**2).mean())).astype(np.float32)
        self.rows = np.empty((plan.rows, DIMS), np.float32)
        for cluster in range(_CLUSTERS):
            here = np.flatnonzero(of == cluster)
            turn = np.linalg.qr(rng.normal(size=(DIMS, DIMS)))[0].astype(np.float32)
            noise = rng.standard_normal((len(here), DIMS), np.float32) * spectrum
            self.rows[here] = centres[cluster] + noise @ turn.T
        if plan.metric == "cosine":
            self.rows /= np.linalg.norm(self.rows, axis=1, keepdims=True)
        self._rng = rng
        self._weights = None
        if plan.zipf:
            weights = 1 / np.arange(1, plan.rows + 1) ** 0.8
            rng.shuffle(weights)
            self._weights = weights / weights.sum()
        sample = np.sort(rng.choice(plan.rows, 300, replace=False))
        self._radius = float(np.sqrt(np.median(nearest(self.rows, sample)[1][:, -1])))

    def step(self) -> tuple[Rows, Floats]:
        """Return the rows that change next and what they become, without moving them yet."""
        plan, rng = self.plan, self._rng
        chosen = np.sort(rng.choice(plan.rows, plan.changed, replace=False, p=self._weights))
        way = rng.standard_normal((plan.changed, DIMS), np.float32)
        way /= np.linalg.norm(way, axis=1, keepdims=True)
        new = self.rows[chosen] + way * np.float32(_STEP * self._radius)
        far = rng.random(plan.changed) < _JUMPS
        goal = rng.integers(0, plan.rows, plan.changed)
        new[far] = self.rows[goal[far]] + way[far] * np.float32(0.5 * self._radius)
        if plan.metric == "cosine":
            new /= np.linalg.norm(new, axis=1, keepdims=True)
        return chosen, new

    def move(self, chosen: Rows, new: Floats) -> None:
        """Let the rows become what `step` said."""
        self.rows[chosen] = new


def nearest(table: Floats, rows: Rows, count: int = NEIGHBOURS) -> tuple[Rows, Floats]:
    """Return the true nearest rows (n, count) and squared distances; rows of a table of either metric."""
    squares = np.einsum("nd,nd->n", table, table)
    names = np.empty((len(rows), count), np.int64)
    gaps = np.empty((len(rows), count), np.float32)
    step = max(1, _BLOCK // len(table))
    for start in range(0, len(rows), step):
        part = rows[start : start + step]
        near = table[part] @ table.T
        near *= -2
        near += squares
        near += squares[part][:, None]
        near[np.arange(len(part)), part] = np.inf
        best = np.argpartition(near, count - 1, axis=1)[:, :count]
        gap = np.take_along_axis(near, best, axis=1)
        order = np.argsort(gap, axis=1)
        names[start : start + step] = np.take_along_axis(best, order, axis=1)
        gaps[start : start + step] = np.take_along_axis(gap, order, axis=1)
    return names, np.maximum(gaps, 0)


def overlap(found: Rows, truth: Rows) -> NDArray[np.int64]:
    """Return how many of each line (n, k) of `found` are in `truth`."""
    return np.asarray((found[:, :, None] == truth[:, None, :]).any(axis=2).sum(axis=1), np.int64)


@dataclass(frozen=True, slots=True)
class Truth:
    """What is so around one tick, for samples of rows."""

    random: Rows
    changed: Rows
    affected: Rows
    random_after: Rows  # (n, k)
    changed_before: Rows
    changed_after: Rows
    affected_after: Rows


def truth_around(world: World, chosen: Rows, new: Floats, rng: np.random.Generator) -> Truth:
    """Move the rows of the world, and return the truth before and after.

    Affected rows are looked for among the 50 nearest of changed rows, before and after.
    """
    changed = np.sort(rng.choice(chosen, min(200, len(chosen)), replace=False))
    around_old, _ = nearest(world.rows, changed, 50)
    before = world.rows.copy()
    world.move(chosen, new)
    around_new, _ = nearest(world.rows, changed, 50)
    near = np.setdiff1d(np.concatenate([around_old.ravel(), around_new.ravel()]), chosen)
    near = np.sort(rng.choice(near, min(_NEAR, len(near)), replace=False))
    old, _ = nearest(before, near)
    now, _ = nearest(world.rows, near)
    differs = overlap(old, now) < NEIGHBOURS
    random = np.sort(rng.choice(len(world.rows), _RANDOM, replace=False))
    return Truth(
        random,
        changed,
        near[differs],
        nearest(world.rows, random)[0],
        around_old[:, :NEIGHBOURS],
        around_new[:, :NEIGHBOURS],
        now[differs],
    )
