"""The control topic: what versions, backups and roll-backs came to, and requests for them."""

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
    "BackupTaken",
    "BackupsHeld",
    "ControlEvent",
    "ControlReader",
    "ControlTopic",
    "HeldBackup",
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
