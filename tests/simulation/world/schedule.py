"""What goes wrong, when, and the trace that tells it afterwards.

Invariant: everything here is drawn from the seed; the same seed gives the same
faults and the same trace, line by line.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from random import Random


@dataclass(frozen=True, slots=True)
class FaultRates:
    """Probability, per exchange, append or read, of each fault; latencies in seconds.

    `late` is the cruellest: the caller is told of a failure, and what it sent arrives afterwards.
    """

    redis_cut_before: float = 0.0
    redis_cut_midway: float = 0.0
    redis_reply_lost: float = 0.0
    redis_late: float = 0.0
    log_append_lost: float = 0.0
    log_ack_lost: float = 0.0
    log_append_late: float = 0.0
    log_read_failed: float = 0.0
    log_read_short: float = 0.5
    latency: float = 0.002
    slow: float = 0.02  # share of the steps that take up to fifty times `latency`

    def __post_init__(self) -> None:
        redis = self.redis_cut_before + self.redis_cut_midway + self.redis_reply_lost + self.redis_late
        if redis > 1.0 or self.log_append_lost + self.log_ack_lost + self.log_append_late > 1.0:
            raise ValueError("the probabilities of exclusive faults add up to more than 1")


CALM = FaultRates()
ROUGH = FaultRates(
    redis_cut_before=0.01,
    redis_cut_midway=0.01,
    redis_reply_lost=0.02,
    redis_late=0.01,
    log_append_lost=0.01,
    log_ack_lost=0.02,
    log_append_late=0.01,
    log_read_failed=0.01,
)


class Trace:
    """What happened, in order of virtual time; formatted only when somebody reads it."""

    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now
        self._lines: list[tuple[float, str, str]] = []

    def __call__(self, who: str, what: str) -> None:
        self._lines.append((self._now(), who, what))

    def text(self, last: int | None = None) -> str:
        """Return the trace, or its `last` lines, one event a line."""
        lines = self._lines if last is None else self._lines[-last:]
        return "\n".join(f"{at:12.6f}  {who:<16}  {what}" for at, who, what in lines)


@dataclass(frozen=True, slots=True)
class Action:
    """One thing that a storm may do, and how often in proportion to the others."""

    name: str
    do: Callable[[], Awaitable[None] | None]
    weight: float = 1.0


@dataclass(slots=True)
class Storm:
    """Draw `count` actions by weight and do them, `mean_gap` virtual seconds apart on average."""

    rng: Random
    trace: Trace
    actions: Sequence[Action]
    count: int
    mean_gap: float
    done: list[str] = field(default_factory=list)

    async def run(self) -> None:
        weights = [action.weight for action in self.actions]
        for _ in range(self.count):
            await asyncio.sleep(self.rng.expovariate(1.0 / self.mean_gap))
            (action,) = self.rng.choices(self.actions, weights)
            self.trace("storm", action.name)
            self.done.append(action.name)
            result = action.do()
            if result is not None:
                await result
