"""What is told on the control topic: versions, backups, roll-backs; of drift, see `drift_events`.

Invariant: an event is a fact that has happened, or a request; the same fact always has the same
id, so one that is told twice, after a crash say, is known for one.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar

from driftline.control.drift_events import (
    Alarm,
    AlarmAnswered,
    DriftVerdict,
    PersonNeeded,
    RecoveryEnded,
    RecoveryStep,
)

_NOTHING: Mapping[str, object] = {}


@dataclass(frozen=True, slots=True)
class VersionCommitted:
    """A version is in the store."""

    TYPE: ClassVar[str] = "version.committed"
    version: str
    op: int  # number of its barrier, or of the restore that it records
    branch: str
    scenario: str
    parents: tuple[str, ...]
    base: str
    rows: Mapping[str, int]  # live, by table
    changed: Mapping[str, int]  # stored by the version itself, by table
    gate: Mapping[str, object] = field(default_factory=dict)

    @property
    def subject(self) -> str:
        """What the event's id says besides its type."""
        return self.version


@dataclass(frozen=True, slots=True)
class VersionRejected:
    """A barrier became no version; what changed goes into the next one."""

    TYPE: ClassVar[str] = "version.rejected"
    op: int
    branch: str
    scenario: str
    reason: str
    gate: Mapping[str, object] = field(default_factory=dict)

    @property
    def subject(self) -> str:
        """What the event's id says besides its type."""
        return str(self.op)


@dataclass(frozen=True, slots=True)
class HeldBackup:
    """A backup in a versioner's memory."""

    op: int
    time: int  # log time, ms
    bytes: int
    rows: int  # stored by it


@dataclass(frozen=True, slots=True)
class BackupTaken:
    """An instance holds a backup of its shards."""

    TYPE: ClassVar[str] = "backup.taken"
    op: int
    instance: str
    shards: Mapping[str, tuple[int, ...]]
    held: bool  # False: it alone is larger than the bytes that backups may take
    bytes: int

    @property
    def subject(self) -> str:
        """What the event's id says besides its type."""
        return f"{self.op}/{self.instance}"


@dataclass(frozen=True, slots=True)
class BackupsHeld:
    """All backups that an instance holds from now on, of its shards; oldest first."""

    TYPE: ClassVar[str] = "backups.held"
    instance: str
    number: int  # of this statement, by the instance
    shards: Mapping[str, tuple[int, ...]]
    backups: tuple[HeldBackup, ...]

    @property
    def subject(self) -> str:
        """What the event's id says besides its type."""
        return f"{self.instance}/{self.number}"


@dataclass(frozen=True, slots=True)
class RollbackRequested:
    """Somebody wants rows to be as they were at a backup."""

    TYPE: ClassVar[str] = "rollback.requested"
    request: str  # 32 hex digits of its own
    table: str
    ids: tuple[int, ...]
    backup: int  # op of the backup

    @property
    def subject(self) -> str:
        """What the event's id says besides its type."""
        return self.request


@dataclass(frozen=True, slots=True)
class RollbackDone:
    """An instance has asked the aggregators to write the rows of its shards as they were."""

    TYPE: ClassVar[str] = "rollback.done"
    request: str
    table: str
    backup: int
    shards: tuple[int, ...]  # whose share of the request this answers
    rows: int
    absent: tuple[int, ...]  # ids that had no row at the backup: left as they are
    ops: tuple[int, ...]  # numbers of the restore-rows ops

    @property
    def subject(self) -> str:
        """What the event's id says besides its type."""
        return f"{self.request}/{'-'.join(map(str, self.shards))}"


@dataclass(frozen=True, slots=True)
class RollbackRefused:
    """An instance that has shards of a request cannot carry it out."""

    TYPE: ClassVar[str] = "rollback.refused"
    request: str
    shards: tuple[int, ...]
    reason: str

    @property
    def subject(self) -> str:
        """What the event's id says besides its type."""
        return f"{self.request}/{'-'.join(map(str, self.shards))}"


ControlEvent = (
    VersionCommitted
    | VersionRejected
    | BackupTaken
    | BackupsHeld
    | RollbackRequested
    | RollbackDone
    | RollbackRefused
    | DriftVerdict
    | Alarm
    | AlarmAnswered
    | RecoveryStep
    | RecoveryEnded
    | PersonNeeded
)
KINDS: Mapping[str, type[ControlEvent]] = {
    kind.TYPE: kind
    for kind in (
        VersionCommitted,
        VersionRejected,
        BackupTaken,
        BackupsHeld,
        RollbackRequested,
        RollbackDone,
        RollbackRefused,
        DriftVerdict,
        Alarm,
        AlarmAnswered,
        RecoveryStep,
        RecoveryEnded,
        PersonNeeded,
    )
}
