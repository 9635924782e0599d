"""Reads of a deployed version: as reads of the live rows, from the copy beside them.

Invariant: rows come from a copy that was whole before and after they were read, or not at
all. Pure, but for the retries.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

from driftline.client.asking import Request
from driftline.client.reading import Query, Reading, Rows
from driftline.errors import NotDeployedError, StoreUnavailableError
from driftline.rows import resp
from driftline.rows.connection import Reply
from driftline.rows.deployed import register_key, rows_of, values_key
from driftline.rows.layout import ShardKeys
from driftline.shard.spec import TableSpec

_NO_POSITION: list[Reply] = [None, None, None, None]


class PinnedReading:
    """One read of version `version` while answers arrive."""

    def __init__(self, query: Query, spec: TableSpec, version: str) -> None:
        self._query, self._spec, self._version = query, spec, version
        self._reading, self._missing = Reading(query, spec), set[int]()

    def requests(self) -> list[Request]:
        """Return what to ask of each shard: is it there, its rows, is it still there."""
        asked: list[Request] = []
        table, version = self._spec.name, self._version
        for shard, rows in self._query.arguments(
            lambda shard: values_key(ShardKeys.of(table, shard), version)
        ):
            keys = ShardKeys.of(table, shard)
            entry = resp.command(b"HGET", register_key(keys), version.encode())
            count = resp.command(b"HLEN", values_key(keys, version))
            asked.append(Request.of(table, shard, (b"next",), entry, *rows, count, entry, replies=5))
        return asked

    def take(self, shard: int, replies: Sequence[Reply]) -> None:
        """Enter the answer of one shard. Raises StoreUnavailableError where Redis refused."""
        for reply in replies:
            if isinstance(reply, Exception):
                raise StoreUnavailableError(f"Redis refused a read of table {self._spec.name}: {reply!r}")
        _, before, rows, count, after = replies
        if not isinstance(before, bytes) or before != after or count != rows_of(before):
            self._missing.add(shard)
            return
        self._missing.discard(shard)
        self._reading.take(shard, [_NO_POSITION, cast("list[Reply]", rows)])

    def rows(self, on_missing: str) -> Rows:
        """Return all rows, in the order of the ids. Raises NotDeployedError, InputError."""
        if self._missing:
            raise NotDeployedError(
                f"version {self._version} is not readable in shard {self._spec.name}:{min(self._missing)}: "
                f"it is not deployed, or still being loaded; `driftline deploy {self._version}` has it loaded"
            )
        return self._reading.rows(on_missing)
