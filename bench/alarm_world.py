"""Simulated training, seen as the judge sees it: healthy regimes, and faults planted in them.

A tick has some rows, each with its own update count and its own usual step; all steps share a factor
that follows the time of day, the learning rate and a slow common wander (autocorrelation .7 between
ticks of a minute, heavy-tailed). What a row loses of its neighbourhood follows from its step, as
measured on the graph: .05 → .07, .3 → .32, 1 → .67.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from driftline.drift import Observation

Doubles = NDArray[np.float64]
NEIGHBOURS = 10
_STEP = 0.1  # usual relative offset
_LOSS = (np.log([0.01, 0.05, 0.3, 1.0, 4.0]), np.array([0.015, 0.07, 0.32, 0.67, 0.95]))

REGIMES = ("steady", "learning_rate", "new_items", "popularity", "quiet_nights")
FAULTS = ("single_node", "cluster", "rotation", "bad_push", "slow_poison")


@dataclass(frozen=True, slots=True)
class World:
    """A healthy regime at a tick length."""

    regime: str
    minutes: float  # length of a tick
    rows: int = 120  # gradient rows per tick at noon

    @property
    def ticks_per_day(self) -> float:
        """Ticks of a day."""
        return 1440 / self.minutes


@dataclass(frozen=True, slots=True)
class Fault:
    """What goes wrong, from which tick on, how strong in usual movements."""

    kind: str
    at: int
    strength: float


class Training:
    """Training, going on tick by tick; a copy goes on as the original would. Same seed, same ticks."""

    def __init__(self, world: World, seed: int) -> None:
        self._world, self._rng = world, np.random.default_rng(seed)
        self._tick, self._wander, self._rate = 0, 0.0, 0.05

    def step(self, fault: Fault | None = None) -> Observation:
        """Return the next tick, with `fault` in it from its tick on."""
        world, rng, tick, per_day = self._world, self._rng, self._tick, self._world.ticks_per_day
        self._tick += 1
        phi = 0.7**world.minutes  # the wander forgets in minutes, not in ticks
        time = 2 * np.pi * (tick / per_day)
        self._wander = phi * self._wander + float(rng.standard_t(5)) * np.sqrt(0.6 * (1 - phi**2))
        if world.regime == "learning_rate" and rng.random() < 0.5 / per_day:
            self._rate = float(np.clip(self._rate * rng.choice([0.5, 0.7, 1.4, 2.0]), 0.005, 0.5))
        busy = 1 + 0.3 * np.cos(time)
        if world.regime == "quiet_nights":
            busy = max(0.02, 0.55 + 0.5 * np.cos(time) + 0.1 * rng.standard_normal())
        n = max(1, int(rng.poisson(world.rows * busy)))
        updates = np.floor(rng.pareto(1.2, n) * 10).astype(np.int64)
        if world.regime == "new_items":
            share = 0.1 + 0.1 * np.sin(time / 7)  # launches come and go over the week
            updates[rng.random(n) < share] = rng.integers(0, 3)
        if world.regime == "popularity":
            # What is popular today moves more, tomorrow something else does.
            popular = rng.random(n) < 0.15 + 0.1 * np.sin(2 * np.pi * tick / per_day / 5)
        else:
            popular = np.zeros(n, bool)
        common = 0.15 * np.sin(time) + 0.08 * self._wander + np.log(self._rate / 0.05)
        steps = np.log(_STEP) + common + 0.4 * rng.standard_normal(n) + 0.6 / np.sqrt(1 + updates)
        steps += 0.25 * popular
        lost_extra = np.zeros(n)
        coherence = 0.01 * abs(rng.standard_normal()) + 0.002 * np.cos(time)
        turned = abs(0.02 * rng.standard_normal())
        if fault is not None and tick >= fault.at:
            hit = _hit(fault, tick, n, rng)
            grown = _strength(fault, tick, per_day)
            steps[hit] += np.log(grown)
            if fault.kind == "rotation":
                turned = min(1.0, turned + 0.1 * fault.strength)
            if fault.kind in ("bad_push", "slow_poison", "cluster"):
                lost_extra[hit] = 0.05 * (grown - 1)
                coherence += 0.02 * (grown - 1) * hit.mean()
        return _observation(tick, steps, lost_extra, updates, coherence, turned, self._rate, rng)


def ticks(world: World, count: int, seed: int, fault: Fault | None = None) -> Iterator[Observation]:
    """Yield `count` ticks; the same seed gives the same ticks up to the fault."""
    training = Training(world, seed)
    for _ in range(count):
        yield training.step(fault)


def _hit(fault: Fault, tick: int, n: int, rng: np.random.Generator) -> NDArray[np.bool_]:
    if fault.kind == "single_node":
        return np.asarray(np.arange(n) == 0, np.bool_)
    if fault.kind == "cluster":
        return np.asarray(rng.random(n) < 0.1, np.bool_)
    if fault.kind == "bad_push":
        return np.full(n, tick == fault.at)
    if fault.kind == "rotation":
        return np.zeros(n, bool)
    return np.ones(n, bool)


def _strength(fault: Fault, tick: int, per_day: float) -> float:
    if fault.kind != "slow_poison":
        return fault.strength
    # Reaches its strength within a tenth of a day, or 10 ticks, whichever is longer.
    return 1 + (fault.strength - 1) * min(1.0, (tick - fault.at + 1) / max(10.0, per_day / 10))


def _observation(
    tick: int,
    steps: Doubles,
    lost_extra: Doubles,
    updates: NDArray[np.int64],
    coherence: float,
    turned: float,
    rate: float,
    rng: np.random.Generator,
) -> Observation:
    n = len(steps)
    loss = np.clip(np.interp(steps, *_LOSS) + lost_extra, 0, 1)
    # A share of K neighbours is exchanged; 1 − Jaccard = 2x / (1 + x) of the exchanged share x.
    exchanged = rng.binomial(NEIGHBOURS, loss / (2 - loss))
    relative = np.exp(steps)
    return Observation(
        tick,
        rng.integers(0, 1 << 40, n).astype(np.uint64),
        {
            "relative_offset": relative,
            "jaccard": (NEIGHBOURS - exchanged) / (NEIGHBOURS + exchanged),
            "offset_distance": relative,
            "norm_ratio": np.exp(0.2 * relative * rng.standard_normal(n)),
        },
        updates,
        np.ones(n),
        coherence,
        turned,
        learning_rate=rate,
    )
