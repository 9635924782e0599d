"""What a client learns from the control topic: what became of its barriers and roll-backs.

Invariant: only signed events count; what is waited for is looked for from where the topic ended
before it was asked for, so an answer cannot be missed.
"""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from driftline import topics
from driftline.control import (
    BackupsHeld,
    ControlEvent,
    ControlTopic,
    HeldBackup,
    RollbackDone,
    RollbackRefused,
    RollbackRequested,
    VersionCommitted,
    VersionRejected,
)
from driftline.errors import InputError, TimedOutError, VersionRejectedError
from driftline.frames.headers import Keyring
from driftline.ids import shard_of
from driftline.log import Log

T = TypeVar("T")
_WAIT = 0.2


@dataclass(frozen=True, slots=True)
class NodeRollback:
    """Rows that were put back to a backup."""

    rows: int
    absent: tuple[int, ...]  # ids that had no row at the backup: left as they are
    ops: tuple[int, ...]  # the restore-rows ops


@dataclass(frozen=True, slots=True)
class BackupFact:
    """A backup that versioners hold in memory, over all of them."""

    op: int
    time: int  # log time, ms
    bytes: int
    rows: int


class Outcomes:
    """The control topic as one client reads it."""

    def __init__(self, log: Log, group: str, keyring: Callable[[], Keyring]) -> None:
        self._log, self._group, self._keyring = log, group, keyring

    def _topic(self) -> ControlTopic:
        return ControlTopic(self._log, self._group, self._keyring())

    async def end(self) -> int:
        """Return where the next event will be."""
        if topics.control() not in await self._log.topics():
            return 0
        return await self._topic().end()

    async def version_of(self, op: int, since: int, timeout: float) -> VersionCommitted:
        """Return the version that a barrier became.

        Raises VersionRejectedError if it became none, TimedOutError if nothing is known in time.
        """

        def look(event: ControlEvent) -> VersionCommitted | None:
            if isinstance(event, VersionRejected) and event.op == op:
                raise VersionRejectedError(f"barrier {op} became no version: {event.reason}", op)
            return event if isinstance(event, VersionCommitted) and event.op == op else None

        return await self._find(look, since, timeout, f"what became of barrier {op}")

    async def roll_back(
        self, table: str, shards: int, ids: Iterable[int], backup: int, timeout: float
    ) -> NodeRollback:
        """Have rows put back to a backup in the versioners' memory. Raises InputError when refused."""
        request = RollbackRequested(uuid.uuid4().hex, table, tuple(dict.fromkeys(ids)), backup)
        if not request.ids:
            raise InputError("no ids to roll back")
        topic = self._topic()
        await topic.create()
        since = await topic.tell(request)
        waiting = set(np.unique(shard_of(np.array(request.ids, np.uint64), shards)).tolist())
        done: list[RollbackDone] = []

        def look(event: ControlEvent) -> NodeRollback | None:
            if isinstance(event, RollbackRefused) and event.request == request.request:
                raise InputError(f"roll-back of {table} to backup {backup} is refused: {event.reason}")
            if isinstance(event, RollbackDone) and event.request == request.request:
                waiting.difference_update(event.shards)
                done.append(event)
            if waiting:
                return None
            # one that was taken for dead may have answered, too: nothing counts twice
            absent = tuple(sorted({row for each in done for row in each.absent}))
            ops = tuple(sorted({op for each in done for op in each.ops}))
            return NodeRollback(len(request.ids) - len(absent), absent, ops)

        return await self._find(look, since, timeout, f"the roll-back of {table} to backup {backup}")

    async def backups(self) -> list[BackupFact]:
        """Return the backups in memory, oldest first: what the shards' last statements say."""
        end = await self.end()
        stated: dict[tuple[str, int], tuple[str, tuple[HeldBackup, ...]]] = {}
        last: dict[str, tuple[HeldBackup, ...]] = {}
        reader = await self._topic().reader(0)
        try:
            while reader.position < end:
                for told in await reader.read(wait=_WAIT):
                    event = told.event
                    if isinstance(event, BackupsHeld):
                        last[event.instance] = event.backups
                        for table, numbers in event.shards.items():
                            stated.update(
                                {(table, number): (event.instance, event.backups) for number in numbers}
                            )
        finally:
            await reader.close()
        holding = {instance for instance, _ in stated.values()}
        found: dict[int, BackupFact] = {}
        for instance in sorted(holding):
            for each in last[instance]:
                before = found.get(each.op, BackupFact(each.op, each.time, 0, 0))
                found[each.op] = BackupFact(
                    each.op,
                    max(before.time, each.time),
                    before.bytes + each.bytes,
                    before.rows + each.rows,
                )
        return [found[op] for op in sorted(found)]

    async def _find(
        self, look: Callable[[ControlEvent], T | None], since: int, timeout: float, what: str
    ) -> T:
        try:
            async with asyncio.timeout(timeout):
                await self._topic().create()
                reader = await self._topic().reader(since)
                try:
                    while True:
                        for told in await reader.read(wait=_WAIT):
                            found = look(told.event)
                            if found is not None:
                                return found
                finally:
                    await reader.close()
        except TimeoutError:
            raise TimedOutError(
                f"{what} is not known after {timeout} s; does a versioner run for {self._group!r}, and is it "
                "ready?"
            ) from None


def barrier_body(
    kind: str, metadata: Mapping[str, object] | None, more: Mapping[str, object]
) -> dict[str, object]:
    """Return the body of a barrier; what is None is left out."""
    return {"kind": kind, "metadata": dict(metadata or {})} | {
        name: value for name, value in more.items() if value is not None
    }
