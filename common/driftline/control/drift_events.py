"""What is told on the control topic of drift: verdicts, alarms, and every step of a recovery.

Invariant: as in `events`; the alarm, the answer of a person and the steps of its recovery name
the alarm by its number, so the topic alone says how far a recovery has come.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar

NODES = 1_000
"""Deviating nodes that an event names; `node_count` tells how many there are."""


@dataclass(frozen=True, slots=True)
class DriftVerdict:
    """What a monitor says of one tick of one table, as far as it follows the table."""

    TYPE: ClassVar[str] = "verdict"
    op: int  # number of the barrier that ends the tick
    table: str
    shards: tuple[int, ...]  # judged: those that the instance follows
    of: int  # shards of the table
    instance: str
    time: int  # log time of the barrier, ms
    begun: int  # op of the barrier at which the tick began; 0: at the table's birth
    mode: str  # observe, approve, auto
    standing: str  # ok, calibrating, warning, deviating, alarm, cooling, degraded, incomplete
    rule: str  # which rule spoke; "": none
    action: str  # none, node_rollback, full_rollback
    nodes: tuple[int, ...]  # deviating, ascending; the first NODES of them
    node_count: int
    onset: int  # op of the barrier that ends the tick at which the trouble is thought to begin; 0: none
    clean: int  # op of the newest barrier before that; 0: none is known
    evidence: Mapping[str, object] = field(default_factory=dict)  # as `drift.Evidence`
    producers: Mapping[str, object] = field(default_factory=dict)  # hex -> [rows, mean norm, largest norm]

    @property
    def subject(self) -> str:
        """What the event's id says besides its type."""
        return f"{self.op}/{self.table}/{'-'.join(map(str, self.shards))}"


@dataclass(frozen=True, slots=True)
class Alarm:
    """Verdicts call for an action; later ones of the same trouble are merged into it."""

    TYPE: ClassVar[str] = "alarm"
    alarm: int  # its number: the op of the barrier of its first verdict
    table: str  # of the strictest verdict
    rule: str
    action: str  # node_rollback or full_rollback: what was called for first
    mode: str
    onset: int  # op, as in the verdict
    clean: int  # op: what is restored must not be newer
    nodes: Mapping[str, tuple[int, ...]]  # by table
    verdicts: tuple[str, ...]  # ids of the events it is made of
    why: str
    instance: str

    @property
    def subject(self) -> str:
        """What the event's id says besides its type."""
        return str(self.alarm)


@dataclass(frozen=True, slots=True)
class AlarmAnswered:
    """A person says what is to become of an alarm."""

    TYPE: ClassVar[str] = "alarm.answered"
    alarm: int
    answer: str  # approve, reject
    who: str
    why: str
    number: str  # 32 hex digits of its own

    @property
    def subject(self) -> str:
        """What the event's id says besides its type."""
        return f"{self.alarm}/{self.number}"


@dataclass(frozen=True, slots=True)
class RecoveryStep:
    """A step of a recovery has been taken."""

    TYPE: ClassVar[str] = "recovery.step"
    alarm: int
    number: int  # 1, 2, … within the alarm
    step: str  # observed, waiting, approved, rejected, escalated, quarantined, skipped, preparing, …
    who: str  # instance, or the person
    why: str
    figures: Mapping[str, object] = field(default_factory=dict)  # version, op, request, producer, backup …

    @property
    def subject(self) -> str:
        """What the event's id says besides its type."""
        return f"{self.alarm}/{self.number}"


@dataclass(frozen=True, slots=True)
class RecoveryEnded:
    """An alarm is dealt with; the next trouble is another alarm."""

    TYPE: ClassVar[str] = "recovery.ended"
    alarm: int
    outcome: str  # nodes_restored, restored, observed, rejected, person
    who: str
    why: str
    version: str  # that the group stands at again; "": none
    figures: Mapping[str, object] = field(default_factory=dict)

    @property
    def subject(self) -> str:
        """What the event's id says besides its type."""
        return str(self.alarm)


@dataclass(frozen=True, slots=True)
class PersonNeeded:
    """Nothing more is done by itself."""

    TYPE: ClassVar[str] = "person.needed"
    alarm: int
    why: str
    figures: Mapping[str, object] = field(default_factory=dict)

    @property
    def subject(self) -> str:
        """What the event's id says besides its type."""
        return str(self.alarm)
