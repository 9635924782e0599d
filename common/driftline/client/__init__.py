"""Clients of a deployment: read rows, push gradients, cut snapshots."""

from __future__ import annotations

from driftline.client.aio import AsyncClient
from driftline.client.aio_table import AsyncTable
from driftline.client.options import Options, Snapshot
from driftline.client.reading import Rows
from driftline.client.sync import Client, Table

__all__ = ["AsyncClient", "AsyncTable", "Client", "Options", "Rows", "Snapshot", "Table"]
