"""The control topic: what versions, backups, roll-backs and drift came to, and requests for them."""

from driftline.control.drift_events import (
    Alarm,
    AlarmAnswered,
    DriftVerdict,
    PersonNeeded,
    RecoveryEnded,
    RecoveryStep,
)
from driftline.control.events import (
    BackupsHeld,
    BackupTaken,
    ControlEvent,
    HeldBackup,
    RollbackDone,
    RollbackRefused,
    RollbackRequested,
    VersionCommitted,
    VersionRejected,
)
from driftline.control.topic import ControlReader, ControlTopic
from driftline.control.wire import Told, event_id, read_control, write_control

__all__ = [
    "Alarm",
    "AlarmAnswered",
    "BackupTaken",
    "BackupsHeld",
    "ControlEvent",
    "ControlReader",
    "ControlTopic",
    "DriftVerdict",
    "HeldBackup",
    "PersonNeeded",
    "RecoveryEnded",
    "RecoveryStep",
    "RollbackDone",
    "RollbackRefused",
    "RollbackRequested",
    "Told",
    "VersionCommitted",
    "VersionRejected",
    "event_id",
    "read_control",
    "write_control",
]
