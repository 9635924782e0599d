"""What a demo run says when it is over, for people and for programs.

Invariant: the keys of `Summary.to_json` are stable; a figure that was not measured
is null, never zero.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field

import orjson
from rich.table import Table

from driftline.demo.cutting import CutVersion
from driftline.demo.run import Progress
from driftline.demo.tables import Settings
from driftline.demo.watching import DriftWatch, RolledBack
from driftline.versions.wording import size


@dataclass(frozen=True, slots=True)
class Freshness:
    """Milliseconds from a gradient pushed to its row readable."""

    p50: float | None = None
    p99: float | None = None


@dataclass(frozen=True, slots=True)
class Baselines:
    """Recall@k of the baselines, on the same events as the model's."""

    popularity: float | None
    recency: float | None


@dataclass(frozen=True, slots=True)
class Audit:
    """Whether Redis held what a replay of the log gives, and in words."""

    ok: bool
    detail: str


@dataclass(frozen=True, slots=True)
class Summary:
    """A finished run."""

    source: str
    seed: int
    dims: int
    steps: int
    events: int
    scored_events: int  # counted by every recall: beyond the warm-up, item seen before
    seconds: float
    gradient_rows: int
    rows_per_s: float
    freshness_ms: Freshness
    recall_at_20: float | None  # the embedding model alone
    baselines: Baselines
    recall_ceiling: float | None = None  # where the truth is known: ranking by it
    audit: Audit | None = None
    versions: tuple[CutVersion, ...] = ()  # oldest first; each of both tables
    backups: int = 0  # cut for the versioner's memory
    verdicts: Mapping[str, int] = field(default_factory=dict)  # of ticks, by standing
    rollbacks: tuple[RolledBack, ...] = ()  # alarms dealt with, oldest first
    faults: tuple[str, ...] = ()  # planted

    def to_json(self) -> str:
        """Return one JSON object; what was not measured is null."""
        fields = asdict(self)
        audit = self.audit
        fields["audit"] = None if audit is None else "ok" if audit.ok else "failed"
        fields["audit_detail"] = None if audit is None else audit.detail
        return orjson.dumps(fields, option=orjson.OPT_INDENT_2).decode()


def summarise(
    end: Progress,
    settings: Settings,
    *,
    source: str,
    recall_ceiling: float | None = None,
    audit: Audit | None = None,
    versions: tuple[CutVersion, ...] = (),
    backups: int = 0,
    drift: DriftWatch | None = None,
    faults: tuple[str, ...] = (),
) -> Summary:
    """Return the summary of a run that ended at `end`; `source` says where the events came from.

    Raises ValueError if the run did not rank to depth 20, which is what the summary reports.
    """
    if settings.k != 20:
        raise ValueError(f"settings.k = {settings.k}: a summary reports recall at 20; use k=20")
    return Summary(
        source=source,
        seed=settings.seed,
        dims=settings.dims,
        steps=end.steps,
        events=end.events,
        scored_events=end.overall.events,
        seconds=end.seconds,
        gradient_rows=end.gradient_rows,
        rows_per_s=end.rows_per_s,
        freshness_ms=Freshness(end.health.freshness_p50_ms, end.health.freshness_p99_ms),
        recall_at_20=end.overall.model,
        baselines=Baselines(end.overall.popularity, end.overall.recency),
        recall_ceiling=recall_ceiling,
        audit=audit,
        versions=versions,
        backups=backups,
        verdicts=drift.verdicts if drift is not None else {},
        rollbacks=drift.rollbacks if drift is not None else (),
        faults=faults,
    )


def figure(value: float | None, digits: int) -> str:
    """Return `value` with `digits` decimals, or a dash when it was not measured."""
    return "-" if value is None else f"{value:,.{digits}f}"


def render(summary: Summary) -> Table:
    """Return the summary as a table for a rich console."""
    table = Table(
        title=f"driftline demo · {summary.source}",
        show_header=False,
        title_justify="left",
    )
    table.add_column(style="dim")
    table.add_column(justify="right")
    table.add_row(
        "events",
        f"{summary.events:,} in {summary.steps:,} steps, {summary.seconds:.1f} s",
    )
    table.add_row("gradient rows", f"{summary.gradient_rows:,} of {summary.dims} dimensions")
    table.add_row("rows/s", figure(summary.rows_per_s, 0))
    fresh = summary.freshness_ms
    table.add_row("freshness p50 / p99", f"{figure(fresh.p50, 0)} / {figure(fresh.p99, 0)} ms")
    table.add_section()
    table.add_row("recall@20", f"[bold]{figure(summary.recall_at_20, 3)}[/bold]")
    table.add_row("  most popular", figure(summary.baselines.popularity, 3))
    table.add_row("  user's latest", figure(summary.baselines.recency, 3))
    if summary.recall_ceiling is not None:
        table.add_row("  ranking by the truth", figure(summary.recall_ceiling, 3))
    table.add_row("events counted", f"{summary.scored_events:,}")
    if summary.versions:
        table.add_section()
        stored = sum(each.changed for each in summary.versions)
        added = sum(each.bytes for each in summary.versions)
        table.add_row("versions", f"{len(summary.versions)}, and {summary.backups} backups in memory")
        table.add_row("  stored", f"{stored:,} rows, {size(added)}")
    if summary.verdicts:
        table.add_section()
        table.add_row("drift", ", ".join(f"{count} {name}" for name, count in summary.verdicts.items()))
        for each in summary.rollbacks:
            what = f"{each.outcome} {each.version}".strip()
            table.add_row(f"  alarm {each.alarm}", f"{each.rule} in {each.table}, {each.rows} rows: {what}")
        if not summary.rollbacks:
            table.add_row("  rollbacks", "none")
    if summary.audit is not None:
        table.add_section()
        colour = "green" if summary.audit.ok else "red"
        table.add_row("audit", f"[{colour}]{summary.audit.detail}[/{colour}]")
    return table
