"""What a report holds: plain frozen values, the same for a page in a file and for a live console.

Invariant: every field becomes JSON by itself; columns of many numbers are base64 of little-endian
arrays (`Column`), single ids are decimal strings (JavaScript's numbers end at 2^53).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

NOBODY = 0xFFFF
"""In a column of places: none."""
USUAL_NEIGHBOURS = 10


@dataclass(frozen=True, slots=True)
class Column:
    """Many numbers of one kind."""

    dtype: str  # u1, u2, u8 or f4, little-endian
    shape: tuple[int, ...]
    data: str  # base64


@dataclass(frozen=True, slots=True)
class Fact:
    """A figure or a word of evidence, with its name."""

    name: str
    value: str


@dataclass(frozen=True, slots=True)
class Entry:
    """Something that happened, or a run of the same."""

    time: float  # seconds since the epoch
    kind: str  # version, rejected, backup, verdict, alarm, rollback, person
    tone: str  # good, plain, warning, bad
    title: str
    detail: str = ""
    version: str = ""
    until: float | None = None  # of a run: when it ended
    count: int = 1


@dataclass(frozen=True, slots=True)
class Judged:
    """One verdict that an alarm is made of, with the figures it came from."""

    time: float
    table: str
    standing: str
    rule: str
    facts: tuple[Fact, ...]
    nodes: tuple[str, ...]  # deviating ids, the first few
    node_count: int
    channels: tuple[Mapping[str, object], ...]  # one line for each tick statistic
    producers: tuple[Mapping[str, object], ...]  # rows and gradient norms of each, the largest first


@dataclass(frozen=True, slots=True)
class Alarm:
    """An alarm, what it was raised from, and what became of it."""

    number: int
    time: float
    table: str
    rule: str
    action: str  # what was called for
    why: str
    facts: tuple[Fact, ...]
    judged: tuple[Judged, ...]
    steps: tuple[Entry, ...]
    outcome: str  # empty while it goes on


@dataclass(frozen=True, slots=True)
class LineageNode:
    """A version in the picture of all versions: row 0 is the newest."""

    version: str
    row: int
    lane: int
    parents: tuple[str, ...]
    base: str  # of a rollback: whose rows it took; else empty
    branch: str
    scenario: str
    labels: tuple[str, ...]
    created: float
    rows: int
    changed: int
    facts: tuple[Fact, ...]  # figures, metadata, the gate's verdict


@dataclass(frozen=True, slots=True)
class Lineage:
    """The versions of the group, newest first."""

    nodes: tuple[LineageNode, ...]
    lanes: int
    left_out: int  # older ones that are not shown


@dataclass(frozen=True, slots=True)
class View:
    """Both versions in two dimensions, in one system of coordinates; or why not."""

    name: str
    title: str
    reason: str = ""  # why it cannot be chosen; empty where it can
    old: Column | None = None  # (n, 2) of the drawn rows; NaN where a row holds NaN or infinity
    new: Column | None = None


@dataclass(frozen=True, slots=True)
class Histogram:
    """Local neighbour similarity of the sampled rows, for one choice of K, distance and space."""

    neighbours: int
    metric: str
    space: str  # "full", or the name of a view
    moved: tuple[int, ...]  # by bin of [0, 1]: rows whose own vector changed
    still: tuple[int, ...]  # the others
    mean: float
    median: float


@dataclass(frozen=True, slots=True)
class Changes:
    """The measures that depend on neighbours, of every drawn row, for one choice of K and distance."""

    neighbours: int
    metric: str
    quantity: Column  # (n,)
    ratio: Column  # (n,)
    similarity: Column  # (n,) Jaccard


@dataclass(frozen=True, slots=True)
class NeighbourLists:
    """Neighbours of every drawn row under one distance, nearest first, up to the largest K."""

    metric: str
    old: Column  # (n, k) u16: place in `TableComparison.named`; NOBODY where the list ends
    new: Column
    low: Column  # (n,) distances are low + (high - low) * code / 65535: half the size of the page
    high: Column
    old_distance: Column  # (n, k) u16 codes
    new_distance: Column


@dataclass(frozen=True, slots=True)
class Measure:
    """A measure in words."""

    name: str
    title: str
    definition: str
    unit: str


@dataclass(frozen=True, slots=True)
class DomainShare:
    """How a domain stands in both versions."""

    name: str
    before: int  # rows
    after: int
    changed: int
    added: int
    removed: int
    drawn: int
    mean_offset: float | None  # of its changed rows
    mean_similarity: float | None  # of its sampled rows, at USUAL_NEIGHBOURS and the first distance


@dataclass(frozen=True, slots=True)
class TableComparison:
    """One table in two versions."""

    table: str
    before: str
    after: str
    dim: int
    rows_before: int
    rows_after: int
    changed: int  # rows in both whose vector or optimizer state differs
    added: int
    removed: int
    sampled: int  # of the drawn rows, those chosen at random; histograms are over these
    farthest: int  # drawn besides, because they moved farthest of all
    pool: int  # rows among which neighbours are looked for
    left_out: int  # drawn rows without a place under some distance (NaN, length zero)
    whole: tuple[Fact, ...]
    ids: Column  # (n,) u64 of the drawn rows
    in_sample: Column  # (n,) 1 where chosen at random
    moved: Column  # (n,) 1 where the row's own vector changed
    direction: Column  # (n,) radians
    distance: Column  # (n,)
    domain: Column  # (n,) u8 place in `domains`; meaningless where there are none
    domains: tuple[DomainShare, ...]
    named: Column  # u64 ids that the neighbour lists name
    drawn_of: Column  # (len(named),) u16 place among the drawn rows, NOBODY for others
    measures: tuple[Measure, ...]  # the five of a node
    neighbour_counts: tuple[int, ...]
    metrics: tuple[str, ...]
    changes: tuple[Changes, ...]
    lists: tuple[NeighbourLists, ...]
    histograms: tuple[Histogram, ...]
    views: tuple[View, ...]


@dataclass(frozen=True, slots=True)
class Report:
    """Everything on the page."""

    group: str
    made: float  # seconds since the epoch
    program: str
    before: str  # the versions compared; empty where there is only one
    after: str
    notes: tuple[str, ...]  # what could not be read, and what is not shown
    timeline: tuple[Entry, ...]
    timeline_left_out: int
    alarms: tuple[Alarm, ...]
    lineage: Lineage
    tables: tuple[TableComparison, ...]
