"""What Redis knows of the tables of a group, and whether this release can serve them.

Invariant: a spec is read as plain JSON, so that one of a newer release is told of too.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import orjson

from driftline.client.asker import Asker
from driftline.client.asking import Request
from driftline.doctor.findings import Finding, fail, ok
from driftline.rows.servers import Servers
from driftline.shard.spec import MACHINE_VERSION


@dataclass(frozen=True, slots=True)
class Table:
    """A table as its first shard has it."""

    name: str
    group: str
    shards: int
    machine_version: int


async def collect(servers: Servers, names: Sequence[str]) -> list[Table]:
    """Return those of `names` that Redis knows. Raises StoreUnavailableError, ConfigError."""
    asker = Asker(servers)
    found = []
    try:
        for name in names:
            (reply,) = await asker.ask(name, [Request.of(name, 0, (b"spec",))])
            text = reply[0] if isinstance(reply, list) else None
            table = read(name, text) if isinstance(text, bytes) and text else None
            if table is not None:
                found.append(table)
    finally:
        await asker.close()
    return found


def read(name: str, text: bytes) -> Table | None:
    """Return the table in the JSON of a spec, None if it is not one.

    Examples
    --------
    >>> read("items", b'{"group": "default", "shards": 2, "machine_version": 1}').shards
    2
    """
    try:
        spec = orjson.loads(text)
        return Table(name, str(spec["group"]), int(spec["shards"]), int(spec.get("machine_version", 1)))
    except (ValueError, KeyError, TypeError, AttributeError):
        return None


def judge(tables: Sequence[Table]) -> Iterator[Finding]:
    """Yield the findings on the tables of a group."""
    newer = [table for table in tables if table.machine_version > MACHINE_VERSION]
    for table in newer:
        yield fail(
            "tables",
            f"machine_version of {table.name}",
            f"{table.machine_version}; this release implements up to {MACHINE_VERSION}",
            "upgrade driftline here: its shards stop in this one",
        )
    if not newer:
        told = ", ".join(f"{table.name} ({table.shards} shards)" for table in tables) or "none yet"
        yield ok("tables", f"machine_version {MACHINE_VERSION} serves", told)
