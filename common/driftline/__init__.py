"""driftline: a streaming embedding store with version control."""

from __future__ import annotations

from driftline.client import (
    AsyncClient,
    AsyncTable,
    Client,
    Options,
    Restored,
    RestoredRows,
    RolledBack,
    Rows,
    Snapshot,
    Table,
)
from driftline.connecting import connect, connect_async, open_versions
from driftline.shard.spec import Init, Policy, TableSpec

__all__ = [
    "AsyncClient",
    "AsyncTable",
    "Client",
    "Init",
    "Options",
    "Policy",
    "Restored",
    "RestoredRows",
    "RolledBack",
    "Rows",
    "Snapshot",
    "Table",
    "TableSpec",
    "connect",
    "connect_async",
    "open_versions",
]
