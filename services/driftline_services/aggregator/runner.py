"""Drives one shard: records in, rows committed, states published.

Invariants: what is committed is a prefix of the log; states are published only
after their commit; a dead letter is acknowledged before the commit that passes
its record; an op is a full stop: everything before it is committed and published
before its marker is, and only then may a commit pass it. A runner that lost its
fence is dead: whatever it had not committed is dropped with it.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from driftline import topics
from driftline.errors import StateError
from driftline.frames.events import MOVE, PREPARE, RESTORE, RESTORE_ROWS
from driftline.frames.headers import Keyring
from driftline.ids import lsn
from driftline.log import Log, Record
from driftline.rows.layout import RowLayout
from driftline.rows.shard_store import ShardStore
from driftline.rows.source import VersionSource
from driftline.rows.staging import Staged, Swap, version_text
from driftline.shard.machine import Delta, Shard
from driftline.shard.plan import PendingOp, Plan
from driftline.shard.restore import Preparation, VersionRows
from driftline_services.aggregator.appending import append
from driftline_services.aggregator.dead_letters import dead_letter
from driftline_services.aggregator.faulting import fault_in, in_parts, rows_at_once
from driftline_services.aggregator.guarded import Guarded
from driftline_services.aggregator.limits import Limits
from driftline_services.aggregator.moving import Move
from driftline_services.aggregator.pace import Pace
from driftline_services.aggregator.republishing import named_rows, states_again
from driftline_services.aggregator.restoring import Restoring
from driftline_services.aggregator.stats import Progress
from driftline_services.aggregator.takeover import check_log, tell_relogged
from driftline_services.aggregator.updates import Updates, marker_of


class ShardRunner(Guarded):
    """One owner's work on one shard, from `start` until `close` or a lost fence."""

    def __init__(
        self,
        table: str,
        shard: int,
        *,
        store: ShardStore,
        log: Log,
        keyring: Keyring,
        limits: Limits | None = None,
        move: Move | None = None,
        versions: VersionSource | None = None,
    ) -> None:
        super().__init__()
        self._table, self._index, self._store = table, shard, store
        self._log, self._keyring, self._limits, self._move = log, keyring, limits or Limits(), move
        self._shard = Shard(table, shard, keyring)
        self._updates = Updates(log, table, shard, 0)
        self._restoring = Restoring(table, shard, versions, self.lose)
        self._changing = asyncio.Lock()  # the machine is between two consistent states
        self._pace = Pace(self._limits)
        self._settled = asyncio.Condition()  # notified after each commit
        self._flying = False  # a transaction is under way
        self._torn = False  # the position has moved, the rows have not: never to be committed
        self._finishing = False  # write `published` before the end
        self._again = False  # committed records are still to be published again
        self._marked = 0  # `published` as Redis has it
        self._swap: Swap | None = None  # what the next commit puts in the place of all rows
        self.progress = Progress()

    @property
    def shard(self) -> Shard:
        """The state machine, for reading."""
        return self._shard

    @property
    def unprepared(self) -> str | None:
        """Why the version that is to be restored is not loaded; None while nothing is wrong with it."""
        return self._restoring.failure

    @property
    def store(self) -> ShardStore:
        """The shard where it is now."""
        return self._store

    @property
    def published(self) -> int:
        """Offset below which every record's states are acknowledged."""
        return self._updates.published

    async def start(self) -> int:
        """Take the shard over and return the offset to read the log from.

        Raises PositionError when log and store do not belong together.
        """
        stored = await self._store.take()
        self._shard = Shard(self._table, self._index, self._keyring, stored.position)
        position = self._shard.position
        begin = await check_log(self._log, self._table, self._index, position, self._restoring.versions)
        start = max(min(stored.published, position.next), begin)
        self._updates = Updates(self._log, self._table, self._index, start, self._limits.marker_bytes)
        await tell_relogged(self._updates, self._store, stored)
        self._again = start < position.next
        self._marked = stored.published
        self.progress.applied = self.progress.committed = position.next
        self._run((self._updates.run(), self._flush_forever()))
        await self._restoring.follow(self._store, self._shard)
        return start

    async def apply(self, records: Sequence[Record], *, behind: bool = False) -> None:
        """Apply `records`, which follow those applied before. Raises FenceLostError, StateError.

        Returns when they are applied in memory; see `drain` for when they are durable. `behind`:
        the log holds more, so the commit may wait for it.
        """
        expected = self._shard.position.next
        old = [record for record in records if record.offset < expected]
        rest = records[len(old) :]
        if old:
            await self._guard(self._publish_again(old))
            if rest or old[-1].offset + 1 == expected:
                self._again = False
                await self._updates.jump(expected)
                self._pace.wake()
        while rest:
            self._check()
            if not self._has_room():
                await self._guard(self._wait_for_room())
            async with self._changing:
                self._torn = True
                try:
                    plan = self._shard.screen(rest, rows_at_once(self._shard, self._limits))
                except StateError:  # the position is untouched
                    self._torn = False
                    raise
                await self._apply(plan)
                self._torn = False
                self.progress.applied = self._shard.position.next
            rest = rest[plan.consumed :]
            self._pace.applied(behind=behind)
            if plan.op is not None:
                await self._pass(plan.op)
            await asyncio.sleep(0)  # commits start, and other shards have their turn

    async def drain(self) -> None:
        """Return once everything applied is committed and published. Raises FenceLostError."""
        await self._guard(self._drain())

    async def finish(self) -> None:
        """Drain and write `published`: the next owner has nothing to publish again. Raises FenceLostError."""
        await self._guard(self._finish())

    async def close(self) -> None:
        """Stop at once; what is not committed is left to the next owner."""
        await self._stop()
        await self._restoring.close()
        await self._store.close()

    async def _apply(self, plan: Plan) -> None:
        if len(plan.missing):
            await self._guard(self._fault_in(plan.missing))
        self._shard.apply(plan, None)
        self._shard.cache.trim(self._limits.cache_bytes)
        if plan.rejected:
            gen = self._shard.position.gen
            letters = [dead_letter(self._table, self._index, item, gen) for item in plan.rejected]
            await self._guard(append(self._log, topics.dead_letters(self._table), self._index, letters))
        self._updates.tally.merge(plan.tally)
        self.progress.stats.add(plan)

    async def _pass(self, pending: PendingOp) -> None:
        op, shard = pending.op, self._shard
        await self.drain()
        staged: Staged | None = None
        if shard.restores(pending):  # only this shard waits for its copy, and still notices a lost fence
            wanted = Preparation(op.origin.seq, str(op.body["version"]))
            copy = self._restoring.staged(self._store, RowLayout.of(shard.spec), wanted)
            staged = await self._guard(copy)
        async with self._changing:
            if op.kind == RESTORE_ROWS:  # its rows are published like any others
                await self._fault_in(shard.missing(op.ids))
            if op.kind == MOVE and self._move is not None and op.body["shard"] == self._index:
                await self._guard(self._change_server(self._move, str(op.body["server"])))
            if staged is not None:
                await self._guard(self._landed())
                self._swap = Swap(staged, version_text(op.origin.seq, op.body))
            self._torn = True
            shard.apply_op(pending, VersionRows(staged.rows, staged.ordinals) if staged else None)
            self._torn = False
            self.progress.applied = shard.position.next
            self.progress.stats.passed(op, restored=staged is not None)
            if op.kind != RESTORE_ROWS:  # its rows are published like any others
                await self._updates.mark(marker_of(shard, op, restored=staged is not None))
                await self._updates.jump(shard.position.next)
        await self.drain()
        if op.kind in (PREPARE, RESTORE):
            await self._restoring.follow(self._store, shard)

    async def _change_server(self, move: Move, server: str) -> None:
        """Move what is drained."""
        await self._landed()
        await self._restoring.drop()  # a copy does not move along
        self._store = await move(self._store, self._table, self._index, server)
        await self._restoring.follow(self._store, self._shard)

    async def _landed(self) -> None:
        """Return once no transaction is under way; no other begins while the caller holds `_changing`."""
        async with self._settled:
            await self._settled.wait_for(lambda: not self._flying)

    async def _publish_again(self, records: Sequence[Record]) -> None:
        """Publish the rows that committed records name, as Redis holds them now.

        `published` moves behind the whole stretch only: a delete further on may tell why a row is absent.
        """
        named = named_rows(records, self._shard.spec, self._index)
        position = self._shard.position
        for ids in in_parts(named.ids, rows_at_once(self._shard, self._limits)):
            await self._fault_in(self._shard.missing(ids))
            stored = self._shard.states_of(ids)
            await self._updates.write(states_again(stored, named, lsn(position.gen, position.next - 1)))
            self._shard.cache.trim(self._limits.cache_bytes)

    async def _fault_in(self, missing: NDArray[np.uint64]) -> None:
        await fault_in(self._store, self._shard, self._limits, missing)

    async def _flush_forever(self) -> None:
        while True:
            if not await self._pace.work(self._limits.mark_after):
                if self._marked < self._updates.published:
                    await self._flush()
                else:
                    await self._check_idle()
                continue
            while self._shard.dirty or (self._finishing and self._marked < self._updates.published):
                async with self._pace.commit(lambda: self._shard.cache.dirty_bytes):
                    await self._flush()

    async def _check_idle(self) -> None:
        """Notice a Redis that was emptied, went back or lost keys, though there is nothing to commit."""
        async with self._changing:
            if not self._shard.dirty and not self._torn:
                await self._store.check(RowLayout.of(self._shard.spec), self._shard.position.rows)

    async def _flush(self) -> None:
        await self._updates.wait_for_room(self._limits.publish_window)
        async with self._changing:
            if self._torn:  # an apply has failed, and with it this runner: there is nothing left to do
                await asyncio.get_running_loop().create_future()
            delta = self._shard.take_delta()
            self._flying = True
            log_time = self._shard.position.time
        published, begun = min(self._updates.published, delta.next), time.perf_counter()
        layout, swap, self._swap = RowLayout.of(self._shard.spec), self._swap, None
        if swap is None:
            await self._store.commit(layout, delta, published)
        else:
            await self._restoring.swap_in(self._store, layout, delta, published, swap)
        self.progress.stats.committed(len(delta.states), time.perf_counter() - begun)
        self.progress.committed_time = log_time
        await self._settle(delta, published)

    async def _settle(self, delta: Delta, published: int) -> None:
        self._shard.committed()
        self._marked = published
        if delta.next > self.progress.committed:  # else it only wrote `published`, which may lag behind next
            self._updates.offer(delta.states, delta.next)
        async with self._settled:
            self.progress.committed, self._flying = delta.next, False
            self._settled.notify_all()

    async def _drain(self) -> None:
        with self._pace.hurried():
            async with self._settled:
                await self._settled.wait_for(
                    lambda: not self._flying and self.progress.committed >= self._shard.position.next
                )
        if not self._again:  # else nothing was applied here, and the next owner publishes the stretch
            await self._updates.wait_for(self._shard.position.next)

    async def _finish(self) -> None:
        await self._drain()
        self._finishing = True
        with self._pace.hurried():
            async with self._settled:
                await self._settled.wait_for(lambda: self._marked >= self._updates.published)

    def _has_room(self) -> bool:
        return self._shard.cache.dirty_bytes <= self._limits.flush_bytes

    async def _wait_for_room(self) -> None:
        async with self._settled:
            await self._settled.wait_for(self._has_room)
