"""Clients of a deployment: read rows, push gradients, cut snapshots."""

from __future__ import annotations

from driftline.client.aio import AsyncClient
from driftline.client.aio_table import AsyncTable
from driftline.client.notices import RolledBack
from driftline.client.options import Options, Snapshot
from driftline.client.reading import Rows
from driftline.client.restoring import Restored, RestoredRows
from driftline.client.sync import Client
from driftline.client.sync_table import Table

__all__ = [
    "AsyncClient",
    "AsyncTable",
    "Client",
    "Options",
    "Restored",
    "RestoredRows",
    "RolledBack",
    "Rows",
    "Snapshot",
    "Table",
]
