"""Reads of a deployed version: as reads of the live rows, from the copy beside them.

Invariant: rows come from a copy that was whole before and after they were read, or not at
all. Pure.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from driftline.client.asking import Answer, Request
from driftline.client.reading import Query, Rows
from driftline.errors import NotDeployedError, StoreUnavailableError
from driftline.rows import resp
from driftline.rows.connection import Reply
from driftline.rows.deployed import register_key, rows_of, values_key
from driftline.rows.layout import ShardKeys
from driftline.shard.spec import TableSpec

_NO_POSITION: list[Reply] = [None, None, None, None]


@dataclass(frozen=True, slots=True)
class PinnedQuery:
    """A read of the rows that `version` has."""

    query: Query
    spec: TableSpec
    version: str

    def requests(self) -> list[Request]:
        """Return what to ask of each shard: is it there, its rows, is it still there."""
        asked: list[Request] = []
        table, version, counts = self.spec.name, self.version, self.query.counts
        for shard, rows in self.query.arguments(
            lambda shard: values_key(ShardKeys.of(table, shard), version)
        ):
            keys = ShardKeys.of(table, shard)
            entry = resp.command(b"HGET", register_key(keys), version.encode())
            count = resp.command(b"HLEN", values_key(keys, version))
            more = (entry, *rows, count, entry)
            asked.append(Request.of(table, shard, (b"next",), *more, replies=5, rows=counts[shard], ahead=2))
        return asked

    def decode(self, replies: Sequence[Answer], on_missing: str, landed: bytes | bytearray = b"") -> Rows:
        """Return the rows in the replies to `requests`; `landed` is the buffer that `Values` mean.

        Raises NotDeployedError, InputError, StoreUnavailableError where Redis refused.
        """
        missing: list[int] = []
        found: list[Answer] = []
        for shard, at in zip(self.query.counts, range(0, len(replies), 5), strict=True):
            _, before, rows, count, after = answer = replies[at : at + 5]
            for reply in answer:
                if isinstance(reply, Exception):
                    raise StoreUnavailableError(f"Redis refused a read of table {self.spec.name}: {reply!r}")
            if not isinstance(before, bytes) or before != after or count != rows_of(before):
                missing.append(shard)
            found += [_NO_POSITION, rows]
        if missing:
            raise NotDeployedError(
                f"version {self.version} is not readable in shard {self.spec.name}:{min(missing)}: "
                f"it is not deployed, or still being loaded; `driftline deploy {self.version}` has it loaded"
            )
        return self.query.decode(found, self.spec, on_missing, landed)
