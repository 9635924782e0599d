"""The backups in the versioners' memory, as the control topic tells of them to anybody.

Invariant: what is held of a shard is what the last statement that names the shard says, whoever
made it; so instances that died, or gave shards up, are believed only until another speaks.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from driftline import topics
from driftline.control.events import BackupsHeld, HeldBackup
from driftline.control.wire import Told, read_unverified
from driftline.errors import FrameError
from driftline.log import Log

_WAIT = 1.0


@dataclass(frozen=True, slots=True)
class Held:
    """A backup, over all instances."""

    op: int
    time: int  # log time, ms
    bytes: int
    rows: int
    tables: Mapping[str, tuple[int, ...]]  # the shards that are held of each table
    whole: bool  # whether no shard is missing that any statement tells of


async def told_of(log: Log, group: str) -> list[Told]:
    """Return all that the control topic tells of a group; needs no key, and proves nothing."""
    if topics.control() not in await log.topics():
        return []
    bounds = await log.bounds(topics.control(), 0)
    reader = log.reader(topics.control(), 0, bounds.begin)
    found: list[Told] = []
    try:
        while reader.position < bounds.end:
            for record in await reader.read(wait=_WAIT):
                try:
                    told = read_unverified(record)
                except FrameError:
                    continue  # not an event: nothing to be shown
                if told.group == group:
                    found.append(told)
    finally:
        await reader.close()
    return found


def held_backups(told: Iterable[Told]) -> Sequence[Held]:
    """Return the backups that are in memory by the last statements, oldest first."""
    latest: dict[tuple[str, int], BackupsHeld] = {}
    for each in told:
        if isinstance(each.event, BackupsHeld):
            for table, shards in each.event.shards.items():
                latest |= {(table, shard): each.event for shard in shards}
    statements = {id(each): each for each in latest.values()}.values()
    ops = sorted({backup.op for each in statements for backup in each.backups})
    return [_held(op, latest, list(statements)) for op in ops]


def _held(op: int, latest: Mapping[tuple[str, int], BackupsHeld], statements: Sequence[BackupsHeld]) -> Held:
    facts: list[HeldBackup] = [each for some in statements for each in some.backups if each.op == op]
    holding = {shard for shard, each in latest.items() if any(fact.op == op for fact in each.backups)}
    tables: dict[str, tuple[int, ...]] = {}
    for table, shard in sorted(holding):
        tables[table] = (*tables.get(table, ()), shard)
    return Held(
        op,
        max(each.time for each in facts),
        sum(each.bytes for each in facts),
        sum(each.rows for each in facts),
        tables,
        holding == set(latest),
    )
