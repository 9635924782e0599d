"""The loop: a stream, two tables, minibatch after minibatch.

Invariant: batch s is events [s·batch, (s+1)·batch) and is pushed as step s, always,
so two runs over the same stream push the same steps whatever the tables are made of.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from driftline import clock
from driftline.demo.baselines import Popularity, Recency
from driftline.demo.events import Events
from driftline.demo.measures import Hits, Recall
from driftline.demo.tables import Settings, Table
from driftline.demo.trainer import Trainer

POPULARITY_HALF_LIFE = 1_500.0
"""Events. The strongest of 500 … 10,000 on the edit histories of two large projects: a fair opponent."""


@dataclass(frozen=True, slots=True)
class Health:
    """How the pipeline is doing; measured by whoever wired the tables to it."""

    freshness_p50_ms: float | None = None  # gradient pushed -> row readable
    freshness_p99_ms: float | None = None
    lag: int | None = None  # log records not yet applied
    drift: str = ""  # what the monitor says


@dataclass(frozen=True, slots=True)
class Progress:
    """Where a run stands."""

    events: int
    total: int
    steps: int
    gradient_rows: int
    seconds: float
    overall: Recall
    rolling: Recall
    health: Health

    @property
    def rows_per_s(self) -> float:
        """Gradient rows pushed per second since the start."""
        return self.gradient_rows / self.seconds if self.seconds > 0 else 0.0


def _no_health() -> Health:
    return Health()


def _ignore_step(step: int) -> None:
    """Stand-in for a probe."""


def _never() -> bool:
    return False


@dataclass(frozen=True, slots=True)
class Hooks:
    """Where the stack around the tables is let in; by default nothing is there."""

    after_push: Callable[[int], None] = _ignore_step  # called with each step, once it was pushed
    health: Callable[[], Health] = _no_health  # called before each report
    stop: Callable[[], bool] = _never  # asked before each step; true ends the run in order


def run(
    events: Events,
    users: Table,
    items: Table,
    settings: Settings,
    on_progress: Callable[[Progress], None],
    *,
    hooks: Hooks = Hooks(),
    now: clock.Clock = clock.monotonic,
    report_every: int = 16,
    rolling: int = 5_000,
) -> Progress:
    """Learn from `events` in their order and return where the run ended, everything flushed.

    `on_progress` is called every `report_every` steps and once more at the end; recall
    in `Progress.rolling` covers the last `rolling` events. Ends early, in order, when
    `hooks.stop` says so; errors of the tables pass through.
    """
    trainer = Trainer(users, items, settings)
    popularity, recency = (
        Popularity(settings.k, POPULARITY_HALF_LIFE),
        Recency(settings.k),
    )
    hits = Hits(len(events), int(len(events) * settings.warm_up))
    start, rows, step = now(), 0, 0

    def progress() -> Progress:
        return Progress(
            events=len(hits),
            total=len(events),
            steps=step,
            gradient_rows=rows,
            seconds=now() - start,
            overall=hits.overall(),
            rolling=hits.rolling(rolling),
            health=hooks.health(),
        )

    for first in range(0, len(events), settings.batch):
        if hooks.stop():
            break
        batch = events[first : first + settings.batch]
        by_popularity = popularity.score(batch.users, batch.items)
        by_recency = recency.score(batch.users, batch.items)
        done = trainer.step(step, batch.users, batch.items)
        hooks.after_push(step)
        popularity.learn(batch.users, batch.items)
        recency.learn(batch.users, batch.items)
        hits.record(done.scored, done.hits, by_popularity, by_recency)
        rows += done.gradient_rows
        step += 1
        if step % report_every == 0:
            on_progress(progress())
    users.flush()
    items.flush()
    end = progress()
    on_progress(end)
    return end
