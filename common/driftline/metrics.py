"""Every metric of driftline, in one list.

Invariant: names follow the Prometheus conventions (prefix, base unit in the name,
`_total` on counters) and are never reused for something else. Values are read
when Prometheus asks: the code that does the work counts in plain fields of its
own and knows nothing of this module.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector

TOTAL = "_total"


class Kind(StrEnum):
    """How a metric behaves over time."""

    COUNTER = "counter"  # only rises; back to 0 when the shard changes hands or the process restarts
    GAUGE = "gauge"


@dataclass(frozen=True, slots=True)
class Metric:
    """One metric. `sample` is the only way to give it a value."""

    name: str
    kind: Kind
    help: str
    labels: tuple[str, ...] = ()

    def sample(self, value: float, *labels: str | int) -> Sample:
        """Return a value of this metric. Raises ValueError unless there is one value per label."""
        if len(labels) != len(self.labels):
            raise ValueError(f"{self.name} has the labels {self.labels}, got the values {labels}")
        return Sample(self, tuple(map(str, labels)), float(value))


@dataclass(frozen=True, slots=True)
class Sample:
    """A value of a metric, read just now."""

    metric: Metric
    labels: tuple[str, ...]
    value: float


_SHARD = ("table", "shard")


def _counter(name: str, text: str, labels: tuple[str, ...] = _SHARD) -> Metric:
    return Metric(f"driftline_{name}{TOTAL}", Kind.COUNTER, text, labels)


def _gauge(name: str, text: str, labels: tuple[str, ...] = _SHARD) -> Metric:
    return Metric(f"driftline_{name}", Kind.GAUGE, text, labels)


# Is it keeping up?
LAG = _gauge("lag_records", "Records in the log that are not committed to Redis yet.")
WATERMARK_AGE = _gauge(
    "watermark_age_seconds", "Now minus the log time of the last committed record; 0 without lag."
)
COMMITTED_OFFSET = _gauge("committed_offset", "Next offset, as the position in Redis has it.")
PUBLISHED_OFFSET = _gauge("published_offset", "Offset below which all row states are in the updates log.")

# What does it do?
FRAMES = _counter("frames", "Frames consumed, also those that changed nothing.")
APPLIED_ROWS = _counter("applied_rows", "Rows of gradients, upserts and deletes applied in memory.")
COMMITTED_ROWS = _counter(
    "committed_rows", "Rows written to Redis; several changes of a row may share a write."
)
COMMITS = _counter("commits", "Transactions committed to Redis.")
COMMIT_SECONDS = _counter("commit_seconds", "Time spent in commits; divide its rate by that of commits.")
OPS = _counter("ops", "Ops passed: table specs, barriers, restores, quarantines.")
RESTORES = _counter("restores", "Restores that put a version in the place of all rows.")

# What does it refuse?
DUPLICATES = _counter("duplicate_frames", "Frames skipped: their sequence number was applied before.")
STALE = _counter("stale_rows", "Rows of gradients dropped: computed from rows older than a restore.")
SKIPPED_RESTORES = _counter(
    "skipped_restores", "Restores passed over: another one came first, or the version lacks the table."
)
NONFINITE = _counter("nonfinite_rows", "Rows left as they were: the result would be infinite or NaN.")
DEAD_LETTERS = _counter(
    "dead_letters", "Records refused and put into the dead-letter topic.", (*_SHARD, "reason")
)

OPS_REFUSED = _counter(
    "refused_ops", "Requests of the ops topic refused and put into the ops dead-letter topic.", ("reason",)
)

# What does it hold?
DIRTY_ROWS = _gauge("dirty_rows", "Rows changed in memory and not committed yet.")
CACHED_BYTES = _gauge("cached_bytes", "Memory of the cached rows, dirty ones included.")
OWNED_SHARDS = _gauge("owned_shards", "Shards this worker owns.", ("table",))
FENCE_LOSSES = _counter("fence_losses", "Times another writer took a shard from this worker.", ())

# What comes in as JSON?
INGEST_LAG = _gauge("ingest_lag_records", "Messages in the ingest topic not forwarded yet.", ("partition",))
INGEST_FORWARDED = _counter("ingest_forwarded_records", "Messages forwarded to shards.", ("partition",))
INGEST_REFUSED = _counter(
    "ingest_refused_records", "Messages refused and put into the ingest dead-letter topic.", ("reason",)
)

# What becomes of versions?
VERSIONS = _counter("versions", "Versions committed.", ())
VERSIONS_REJECTED = _counter("rejected_versions", "Barriers that became no version.", ())
VERSION_AGE = _gauge(
    "version_age_seconds", "Now minus the creation of the newest version; 0 without one.", ()
)
VERSION_WAITING = _gauge("waiting_cuts", "Barriers reached by a shard and not decided yet.", ())
VERSION_LAG = _gauge("version_lag_records", "Records of the updates log not taken in by the versioner yet.")
CHANGED_ROWS = _gauge("changed_rows", "Rows changed since the version that a shard stands on.")
CHANGED_BYTES = _gauge("changed_bytes", "Bytes of those rows and their state, in memory or on disk.")
BACKUPS = _gauge("backups", "Backups held in memory.", ())
BACKUP_BYTES = _gauge("backup_bytes", "Memory that they take.", ())
BACKUPS_TAKEN = _counter("taken_backups", "Backups taken.", ())
BARRIERS_ASKED = _counter("requested_barriers", "Barriers that the versioner asked for.", ("cause",))
NODE_ROLLBACKS = _counter("node_rollbacks", "Requests to put rows back to a backup.", ("outcome",))
UNREADABLE_UPDATES = _counter("unreadable_updates", "Records of updates logs that are no update.", ())

# What does the drift monitor see?
DRIFT_LAG = _gauge("drift_lag_records", "Records of the updates log that the monitor has not taken in.")
DRIFT_ROWS = _gauge("drift_rows", "Rows that the monitor watches.", ("table",))
DRIFT_BYTES = _gauge(
    "drift_bytes", "Memory of its rows and neighbour lists, without the search index.", ("table",)
)
DRIFT_TICK_SECONDS = _gauge("drift_tick_seconds", "Time that the last tick took to be judged.", ("table",))
DRIFT_CALIBRATION = _gauge("drift_calibration_ticks", "Ticks in the calibration.", ("table",))
DRIFT_VERDICTS = _counter("drift_verdicts", "Ticks judged, by what is known of them.", ("standing",))
DRIFT_ALARMS = _gauge("drift_open_alarms", "Alarms that are not dealt with.", ())
DRIFT_RECOVERIES = _counter("drift_recoveries", "Alarms dealt with here, by how they ended.", ("outcome",))

METRICS: tuple[Metric, ...] = (
    LAG,
    WATERMARK_AGE,
    COMMITTED_OFFSET,
    PUBLISHED_OFFSET,
    FRAMES,
    APPLIED_ROWS,
    COMMITTED_ROWS,
    COMMITS,
    COMMIT_SECONDS,
    OPS,
    RESTORES,
    DUPLICATES,
    STALE,
    SKIPPED_RESTORES,
    NONFINITE,
    DEAD_LETTERS,
    OPS_REFUSED,
    DIRTY_ROWS,
    CACHED_BYTES,
    OWNED_SHARDS,
    FENCE_LOSSES,
    INGEST_LAG,
    INGEST_FORWARDED,
    INGEST_REFUSED,
    VERSIONS,
    VERSIONS_REJECTED,
    VERSION_AGE,
    VERSION_WAITING,
    VERSION_LAG,
    CHANGED_ROWS,
    CHANGED_BYTES,
    BACKUPS,
    BACKUP_BYTES,
    BACKUPS_TAKEN,
    BARRIERS_ASKED,
    NODE_ROLLBACKS,
    UNREADABLE_UPDATES,
    DRIFT_LAG,
    DRIFT_ROWS,
    DRIFT_BYTES,
    DRIFT_TICK_SECONDS,
    DRIFT_CALIBRATION,
    DRIFT_VERDICTS,
    DRIFT_ALARMS,
    DRIFT_RECOVERIES,
)


@dataclass(frozen=True, slots=True)
class ShardFigures:
    """What a service knows of one shard at one moment; counts since it took the shard over."""

    end_offset: int  # next offset of the log
    committed_offset: int
    published_offset: int
    committed_time: float  # log time of the last committed record, seconds since the epoch; 0: none
    frames: int = 0
    applied_rows: int = 0
    committed_rows: int = 0
    commits: int = 0
    commit_seconds: float = 0.0
    ops: int = 0
    restores: int = 0
    skipped_restores: int = 0
    duplicate_frames: int = 0
    stale_rows: int = 0
    nonfinite_rows: int = 0
    dead_letters: Mapping[str, int] = field(default_factory=dict)  # by reason
    dirty_rows: int = 0
    cached_bytes: int = 0


def lag(end_offset: int, committed_offset: int) -> int:
    """Return the records not committed yet; 0 also when `end_offset` was read before the commit."""
    return max(0, end_offset - committed_offset)


def watermark_age(now: float, committed_time: float, records: int) -> float:
    """Return by how many seconds committed rows are behind the log; 0 when they hold all of it.

    With a lag on a shard that has committed nothing yet (`committed_time` 0) there is nothing to
    measure from: 0, and the lag tells. A broker's clock ahead of ours gives 0 too.
    """
    return max(0.0, now - committed_time) if records and committed_time else 0.0


def shard_samples(table: str, shard: int, figures: ShardFigures, now: float) -> Iterator[Sample]:
    """Yield all metrics of one shard; `now` is in seconds since the epoch."""
    records = lag(figures.end_offset, figures.committed_offset)
    values: tuple[tuple[Metric, float], ...] = (
        (LAG, records),
        (WATERMARK_AGE, watermark_age(now, figures.committed_time, records)),
        (COMMITTED_OFFSET, figures.committed_offset),
        (PUBLISHED_OFFSET, figures.published_offset),
        (FRAMES, figures.frames),
        (APPLIED_ROWS, figures.applied_rows),
        (COMMITTED_ROWS, figures.committed_rows),
        (COMMITS, figures.commits),
        (COMMIT_SECONDS, figures.commit_seconds),
        (OPS, figures.ops),
        (RESTORES, figures.restores),
        (SKIPPED_RESTORES, figures.skipped_restores),
        (DUPLICATES, figures.duplicate_frames),
        (STALE, figures.stale_rows),
        (NONFINITE, figures.nonfinite_rows),
        (DIRTY_ROWS, figures.dirty_rows),
        (CACHED_BYTES, figures.cached_bytes),
    )
    for metric, value in values:
        yield metric.sample(value, table, shard)
    for reason, count in figures.dead_letters.items():
        yield DEAD_LETTERS.sample(count, table, shard, reason)


class SampleCollector(Collector):
    """Reads the samples when Prometheus asks, and at no other time.

    Register it once: `CollectorRegistry().register(SampleCollector(read))`. `read` runs on
    the thread that collects; an exception in it fails that scrape, visibly.
    """

    def __init__(self, read: Callable[[], Iterable[Sample]]) -> None:
        self._read = read

    def describe(self) -> Iterator[CounterMetricFamily | GaugeMetricFamily]:
        """Yield all metrics without values, so that registering reads nothing."""
        return map(_family, METRICS)

    def collect(self) -> Iterator[CounterMetricFamily | GaugeMetricFamily]:
        """Yield the metrics that have values now, in the order of the list.

        Raises ValueError for a series given twice: Prometheus would refuse the whole page.
        """
        values: dict[Metric, dict[tuple[str, ...], float]] = {metric: {} for metric in METRICS}
        for sample in self._read():
            series = values[sample.metric]
            if sample.labels in series:
                raise ValueError(f"{sample.metric.name} has two values for {sample.labels}")
            series[sample.labels] = sample.value
        for metric, series in values.items():
            family = _family(metric)
            for labels, value in series.items():
                family.add_metric(labels, value)
            if series:
                yield family


def _family(metric: Metric) -> CounterMetricFamily | GaugeMetricFamily:
    if metric.kind is Kind.COUNTER:
        return CounterMetricFamily(metric.name.removesuffix(TOTAL), metric.help, labels=metric.labels)
    return GaugeMetricFamily(metric.name, metric.help, labels=metric.labels)


def reference_table() -> str:
    """Return the table of docs/reference/metrics.md, in Markdown."""
    rows = ["| metric | kind | labels | meaning |", "|---|---|---|---|"]
    rows += [
        f"| `{each.name}` | {each.kind} | {', '.join(f'`{label}`' for label in each.labels)} | {each.help} |"
        for each in METRICS
    ]
    return "\n".join(rows) + "\n"
