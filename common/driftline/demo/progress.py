"""A run as it goes: a live panel on a terminal, a plain line now and then elsewhere.

Invariant: what is shown is the `Progress` handed in, nothing is measured here; a
pipe or a log file gets whole lines without control characters.
"""

from __future__ import annotations

from types import TracebackType
from typing import Self

from rich.console import Console
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table

from driftline.demo.measures import Recall
from driftline.demo.run import Progress
from driftline.demo.summary import figure


def line(progress: Progress) -> str:
    """Return `progress` as one plain line."""
    rolling, health = progress.rolling, progress.health
    return (
        f"{progress.events:,}/{progress.total:,} events  {progress.rows_per_s:,.0f} rows/s  "
        f"recall@20 {figure(rolling.model, 3)} (popular {figure(rolling.popularity, 3)}, "
        f"latest {figure(rolling.recency, 3)})  "
        f"freshness {figure(health.freshness_p50_ms, 0)}/{figure(health.freshness_p99_ms, 0)} ms  "
        f"lag {figure(health.lag, 0)}" + (f"  drift {health.drift}" if health.drift else "")
    )


def panel(progress: Progress) -> Table:
    """Return `progress` as a block for a terminal."""
    block = Table.grid(padding=(0, 2))
    block.add_column(style="dim")
    block.add_column()
    bar = ProgressBar(total=progress.total, completed=progress.events, width=40)
    block.add_row("events", f"{progress.events:,} of {progress.total:,}")
    block.add_row("", bar)
    block.add_row("rows/s", figure(progress.rows_per_s, 0))
    block.add_row("recall@20 now", _recall(progress.rolling))
    block.add_row("recall@20 overall", _recall(progress.overall))
    health = progress.health
    block.add_row(
        "freshness",
        f"p50 {figure(health.freshness_p50_ms, 0)} ms, p99 {figure(health.freshness_p99_ms, 0)} ms",
    )
    block.add_row("lag", f"{figure(health.lag, 0)} records")
    if health.drift:
        block.add_row("drift", health.drift)
    return block


def _recall(recall: Recall) -> str:
    return (
        f"[bold]{figure(recall.model, 3)}[/bold]   popular {figure(recall.popularity, 3)}   "
        f"latest {figure(recall.recency, 3)}"
    )


class ProgressView:
    """Context manager whose `update` is the `on_progress` of a run."""

    def __init__(self, console: Console, *, every_seconds: float = 5.0) -> None:
        self._console = console
        self._every = every_seconds  # between lines, where there is no terminal
        self._live = (
            Live(console=console, refresh_per_second=4, transient=True) if console.is_terminal else None
        )
        self._next = 0.0

    def __enter__(self) -> Self:
        if self._live is not None:
            self._live.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._live is not None:
            self._live.stop()

    def update(self, progress: Progress) -> None:
        """Show `progress`; the last one (all events done) is always shown."""
        if self._live is not None:
            self._live.update(panel(progress))
        elif progress.seconds >= self._next or progress.events == progress.total:
            self._next = progress.seconds + self._every
            self._console.print(line(progress), markup=False, highlight=False, soft_wrap=True)
