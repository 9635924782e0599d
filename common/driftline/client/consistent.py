"""Reads that do not mix what was before a restore with what is behind it.

Invariant: rows are returned only if every shard was at one epoch, the same for all of them, before
and after they were read. Pure.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

from driftline.client.asking import Answer, Request, position_command
from driftline.client.reading import POSITION, Query, Rows, check_on_missing, check_replies
from driftline.errors import InputError
from driftline.shard.spec import TableSpec

EPOCH = "epoch"
"""For reads that must not mix what was before a restore with what is behind it."""


@dataclass(frozen=True, slots=True)
class ConsistentQuery:
    """A read of the live rows at one epoch."""

    query: Query
    spec: TableSpec

    def requests(self) -> list[Request]:
        """Return what to ask of each shard: its position, its rows, and its position once more."""
        table, counts = self.spec.name, self.query.counts
        return [
            Request.of(
                table,
                shard,
                POSITION,
                *rows,
                position_command(table, shard, POSITION),
                replies=3,
                rows=counts[shard],
            )
            for shard, rows in self.query.live(table)
        ]

    def decode(
        self, replies: Sequence[Answer], on_missing: str, landed: bytes | bytearray = b""
    ) -> Rows | None:
        """Return the rows, None where they may be from before and behind a restore.

        Raises what `Query.decode` does.
        """
        check_replies(replies, self.spec.name)
        if _mixed(
            cast("Sequence[list[bytes | None]]", replies[::3]),
            cast("Sequence[list[bytes | None]]", replies[2::3]),
        ):
            return None
        pairs = [reply for at, reply in enumerate(replies) if at % 3 != 2]
        return self.query.decode(pairs, self.spec, on_missing, landed)


def _mixed(before: Sequence[list[bytes | None]], after: Sequence[list[bytes | None]]) -> bool:
    epochs: set[int] = set()
    for (following, generation, restores, _), later in zip(before, after, strict=True):
        if following is not None and generation is not None:
            if later[2] != restores:
                return True
            epochs.add(int(restores or b"0"))
    return len(epochs) > 1


def check_reading(on_missing: str, consistent: str | None, version: str | None) -> None:
    """Raise InputError unless the arguments of a read make sense, each and together."""
    check_on_missing(on_missing)
    if consistent not in (None, EPOCH):
        raise InputError(f"consistent {consistent!r}: {EPOCH!r} or None")
    if version is not None and consistent is not None:
        raise InputError("a deployed version never changes: consistent= goes with the live rows only")


def mixed_for(table: str, seconds: float) -> str:
    """Return what to say of a table whose shards are at different epochs for too long."""
    return (
        f"table {table}: its shards are at different epochs for {seconds} s, one waits for its version; "
        "`/readyz` of the aggregators says which and why"
    )
