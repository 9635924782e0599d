"""One seed's world: virtual time, randomness, faults and the trace.

Invariant: all chance comes from the seed through named streams, so that a new
draw in one place does not shift the others.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from random import Random
from typing import Any, TypeVar

from tests.simulation.world.loop import VirtualLoop, run_until_done
from tests.simulation.world.process import Process
from tests.simulation.world.schedule import CALM, Action, FaultRates, Storm, Trace

T = TypeVar("T")

BIRTH = 1_700_000_000.0
"""Wall-clock time of the world's beginning, seconds since the Unix epoch."""


class World:
    """What a simulation hands to the code under test and to its fakes."""

    def __init__(self, seed: int, loop: VirtualLoop, rates: FaultRates = CALM) -> None:
        self.seed = seed
        self.loop = loop
        self.rates = rates
        self.trace = Trace(loop.time)
        self._names: dict[str, int] = {}

    def now(self) -> float:
        """Return the wall clock: a `driftline.clock.Clock`."""
        return BIRTH + self.loop.time()

    def random(self, stream: str) -> Random:
        """Return a stream of its own, a function of the seed and the name."""
        return Random(f"{self.seed}:{stream}")

    def process(self, name: str) -> Process:
        """Start a process; a second one of the same name is called `name#2`, and so on."""
        count = self._names[name] = self._names.get(name, 0) + 1
        return Process(name if count == 1 else f"{name}#{count}", self.trace)

    def storm(self, actions: list[Action], *, count: int, mean_gap: float) -> Storm:
        return Storm(self.random("storm"), self.trace, actions, count, mean_gap)

    def calm(self) -> None:
        """No more random faults: from here on the system must come to rest by itself."""
        self.trace("world", "calm")
        self.rates = CALM

    def delay(self, rng: Random) -> float:
        """Draw how long one step of a message takes."""
        rates = self.rates
        scale = 50.0 if rates.slow and rng.random() < rates.slow else 1.0
        return rng.random() * rates.latency * scale

    async def until(self, condition: Callable[[], bool], *, within: float, poll: float = 0.01) -> None:
        """Wait in virtual time until `condition` holds; fail when it does not `within` seconds."""
        deadline = self.loop.time() + within
        while not condition():
            assert self.loop.time() < deadline, f"not so within {within} virtual seconds"
            await asyncio.sleep(poll)


def run(
    seed: int,
    main: Callable[[World], Coroutine[Any, Any, T]],
    *,
    rates: FaultRates = CALM,
    horizon: float = 3600.0,
) -> T:
    """Run `main` in a world of its own; whatever it raises carries the seed and the end of the trace."""
    loop = VirtualLoop(horizon=horizon)
    world = World(seed, loop, rates)
    try:
        return run_until_done(loop, main(world))
    except BaseException as error:
        error.add_note(f"seed {seed}; the last of what happened:\n{world.trace.text(last=60)}")
        raise
