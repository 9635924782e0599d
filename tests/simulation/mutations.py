"""Bugs to plant in the product, one function each, to see that the simulation finds them.

Invariant: a mutation breaks one rule of architecture.md or formats.md and nothing
else; the patched code is the product's own, but for that rule.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from driftline.frames.states import Marker
from driftline.log import Log, Outgoing
from driftline.ops.window import RequestWindow
from driftline.rows import resp, staging
from driftline.rows.layout import RowLayout
from driftline.rows.shard_store import ShardStore
from driftline.rows.staging import Staged, Swap
from driftline.shard import acceptance, machine
from driftline.shard.cache import CLEAN, RowBlock, RowCache
from driftline.shard.machine import Delta, Shard
from driftline.shard.plan import PendingOp
from driftline.shard.restore import Preparation, VersionRows
from driftline.shard.waves import waves
from driftline_services.aggregator import appending, republishing, restoring, router, runner
from driftline_services.aggregator.restoring import Restoring
from driftline_services.aggregator.runner import ShardRunner
from driftline_services.aggregator.updates import Updates

Patch = pytest.MonkeyPatch


def fault_in_at_an_old_position(patch: Patch) -> None:
    """A row that was dropped comes back as it was when it was first fetched."""
    real = ShardStore.fetch
    remembered: dict[tuple[int, int], RowBlock] = {}

    async def fetch(self: ShardStore, layout: RowLayout, ids: NDArray[np.uint64]) -> RowBlock:
        blocks = []
        for n in range(len(ids)):
            key = id(self), int(ids[n])
            if key not in remembered:
                remembered[key] = await real(self, layout, ids[n : n + 1])
            blocks.append(remembered[key])
        columns = ("ids", "present", "rows", "state", "lsn", "ordinals")
        return RowBlock(*(np.concatenate([getattr(block, name) for block in blocks]) for name in columns))

    patch.setattr(ShardStore, "fetch", fetch)


def a_producer_missing_from_w(patch: Patch) -> None:
    def fields(self: Shard) -> Delta:
        delta = real(self)
        kept = {name: value for name, value in delta.fields.items() if not name.startswith(b"p:")}
        return Delta(delta.states, kept, delta.removed, delta.next)

    real = Shard.take_delta
    patch.setattr(Shard, "take_delta", fields)


def a_batch_across_a_barrier(patch: Patch) -> None:
    """What precedes an op is not drained before its marker."""
    real = ShardRunner._pass

    async def cross(self: ShardRunner, pending: PendingOp) -> None:
        drain = self.drain
        self.drain = _nothing  # type: ignore[method-assign]
        try:
            await real(self, pending)
        finally:
            self.drain = drain  # type: ignore[method-assign]

    patch.setattr(ShardRunner, "_pass", cross)


async def _nothing() -> None:
    """Wait for nothing."""


def publish_before_commit(patch: Patch) -> None:
    real = ShardStore.commit
    offered: dict[int, ShardRunner] = {}
    flush = ShardRunner._flush

    async def remember(self: ShardRunner) -> None:
        offered[id(self._store)] = self
        await flush(self)

    async def commit(self: ShardStore, layout: RowLayout, delta: Delta, published: int) -> None:
        await offered[id(self)]._updates.write(delta.states)
        await real(self, layout, delta, published)

    patch.setattr(ShardRunner, "_flush", remember)
    patch.setattr(ShardStore, "commit", commit)


def ordinals_reused(patch: Patch) -> None:
    def give_birth(self: Shard, slots: NDArray[np.int32]) -> None:
        self.position.ord = self.position.rows
        real(self, slots)

    real = Shard._give_birth
    patch.setattr(Shard, "_give_birth", give_birth)


def marker_before_its_states_are_acknowledged(patch: Patch) -> None:
    async def wait_for(self: Updates, offset: int) -> None:
        """Take what is on its way for acknowledged."""

    patch.setattr(Updates, "wait_for", wait_for)


def published_too_early(patch: Patch) -> None:
    def offer(self: Updates, states: Any, next_offset: int) -> None:
        self.published = next_offset
        real(self, states, next_offset)

    real = Updates.offer
    patch.setattr(Updates, "offer", offer)


def lost_reply_taken_for_success(patch: Patch) -> None:
    """After a broken connection the transaction counts as done, without a look."""

    async def rearm(self: ShardStore, *expected: tuple[bytes, bytes]) -> tuple[bytes, bytes]:
        return (await real(self, *expected), expected[-1])[1]

    real = ShardStore._rearm
    patch.setattr(ShardStore, "_rearm", rearm)


def fence_not_watched(patch: Patch) -> None:
    def arm(self: ShardStore) -> list[resp.Bytes]:
        return [resp.command(b"PING"), *real(self)[1:]]

    real = ShardStore._arm
    patch.setattr(ShardStore, "_arm", arm)


def dead_letter_after_the_commit(patch: Patch) -> None:
    patch.setattr(runner, "append", _in_the_background)


def router_does_not_wait(patch: Patch) -> None:
    patch.setattr(router, "append", _in_the_background)


_RUNNING: set[asyncio.Task[None]] = set()


async def _in_the_background(log: Log, topic: str, partition: int, records: Sequence[Outgoing]) -> None:
    async def later() -> None:
        await asyncio.sleep(0.05 * (1 + partition))
        await appending.append(log, topic, partition, records)

    task = asyncio.create_task(later())
    _RUNNING.add(task)
    task.add_done_callback(_RUNNING.discard)


def dirty_rows_trimmed(patch: Patch) -> None:
    def trim(self: RowCache, budget: int) -> int:
        if self._in_flight is None and self.nbytes > budget:
            self._status[: self.used] = CLEAN
        return real(self, budget)

    real = RowCache.trim
    patch.setattr(RowCache, "trim", trim)


def nothing_published_again_after_a_takeover(patch: Patch) -> None:
    async def skip(self: ShardRunner, records: Sequence[Any]) -> None:
        await self._updates.jump(records[-1].offset + 1)

    patch.setattr(ShardRunner, "_publish_again", skip)


def ids_of_other_shards_published_again(patch: Patch) -> None:
    """What the simulation found in the product: a refused delete may name anything."""
    patch.setattr(republishing, "shard_of", lambda ids, shards: _Any())


class _Any:
    def __eq__(self, other: object) -> Any:
        return slice(None)

    __hash__ = None  # type: ignore[assignment]


def row_count_not_compared(patch: Patch) -> None:
    """Whoever takes over does not see that the rows are gone."""

    async def exchange(self: ShardStore, packed: Sequence[resp.Bytes], replies: int) -> list[Any]:
        answers: list[Any] = await real(self, packed, replies)
        if replies == 4 and b"HGETALL" in bytes(packed[1]):
            fields = dict(zip(answers[1][::2], answers[1][1::2], strict=True))
            answers[2] = int(fields.get(b"rows", b"0"))
        return answers

    real = ShardStore._exchange
    patch.setattr(ShardStore, "_exchange", exchange)


def requests_of_before_a_takeover_forgotten(patch: Patch) -> None:
    async def begin(self: router.Router, start: int) -> None:
        self._window = RequestWindow()

    patch.setattr(router.Router, "begin", begin)


def requests_carried_out_again(patch: Patch) -> None:
    patch.setattr(RequestWindow, "check", lambda *_: None)


def waves_out_of_order(patch: Patch) -> None:
    def backwards(slots: NDArray[np.int32]) -> Iterator[NDArray[np.intp]]:
        return reversed(list(real(slots)))

    real = waves
    patch.setattr(machine, "waves", backwards)


def tombstone_with_an_older_lsn(patch: Patch) -> None:
    def begin_flight(self: RowCache) -> NDArray[np.int32]:
        slots = real(self)
        dead = slots[~self.alive[slots]]
        self.lsn[dead] -= np.uint64(1)
        return slots

    real = RowCache.begin_flight
    patch.setattr(RowCache, "begin_flight", begin_flight)


def repeated_frames_applied(patch: Patch) -> None:
    def take_seq(position: Any, event: Any) -> bool:
        real(position, event)
        return True

    real = acceptance.take_seq
    patch.setattr(acceptance, "take_seq", take_seq)


def rows_cached_over_a_restore(patch: Patch) -> None:
    patch.setattr(RowCache, "clear", lambda self: None)


def a_floor_that_is_not_raised(patch: Patch) -> None:
    def swap_in(self: Shard, version: VersionRows, at: int) -> None:
        real(self, version, self.position.floor)

    real = Shard._swap_in
    patch.setattr(Shard, "_swap_in", swap_in)


def ordinals_that_go_back_with_a_restore(patch: Patch) -> None:
    def swap_in(self: Shard, version: VersionRows, at: int) -> None:
        self.position.ord = 0
        real(self, version, at)

    real = Shard._swap_in
    patch.setattr(Shard, "_swap_in", swap_in)


def a_copy_swapped_in_that_is_not_whole(patch: Patch) -> None:
    """The last block of a version never arrives, and nobody counts."""

    async def write_copy(connect: Any, copy: Any, layout: Any, blocks: Any, wrote: Any) -> int:
        kept: list[RowBlock] = []
        last: RowBlock | None = None
        async for block in blocks:
            kept += [last] if last is not None else []
            last = block

        async def shortened() -> AsyncIterator[RowBlock]:
            for each in kept:
                yield each

        await real(connect, copy, layout, shortened(), wrote)
        return sum(len(each.ids) for each in kept) + (0 if last is None else len(last.ids))

    async def swap(self: ShardStore, delta: Delta, published: int, swap: Swap) -> None:
        counts = await self._exchange(
            [resp.command(b"HLEN", key) for key in (swap.staged.copy.values, swap.staged.copy.state)], 2
        )
        rows, states = (each if isinstance(each, int) else 0 for each in counts)
        staged = replace(swap.staged, rows=rows, states=states)
        await swapped(self, delta, published, replace(swap, staged=staged))

    real, swapped = staging.write_copy, ShardStore.swap
    patch.setattr(restoring, "write_copy", write_copy)
    patch.setattr(ShardStore, "swap", swap)


def a_restore_that_takes_whatever_was_prepared(patch: Patch) -> None:
    """The copy that lies beside the rows is swapped in, whichever version the restore names."""
    real = Restoring.staged

    async def staged(self: Restoring, store: ShardStore, layout: RowLayout, wanted: Preparation) -> Staged:
        return await real(self, store, layout, self.wanted or wanted)

    patch.setattr(Restoring, "staged", staged)


def a_restore_marked_behind_its_commit(patch: Patch) -> None:
    async def mark(self: Updates, marker: Marker) -> None:
        if marker.kind != "restore":
            await real(self, marker)

    real = Updates.mark
    patch.setattr(Updates, "mark", mark)


MUTATIONS: dict[Callable[[Patch], None], frozenset[str]] = {
    fault_in_at_an_old_position: frozenset({"rows", "position"}),
    a_producer_missing_from_w: frozenset({"position"}),
    a_batch_across_a_barrier: frozenset({"marker-early", "barrier", "assertion"}),
    publish_before_commit: frozenset({"published-uncommitted"}),
    ordinals_reused: frozenset({"position", "rows"}),
    marker_before_its_states_are_acknowledged: frozenset({"marker-early"}),
    published_too_early: frozenset({"published-early", "marker-early"}),  # markers wait for it
    lost_reply_taken_for_success: frozenset(
        {"position", "rows", "barrier", "marker-early", "published-uncommitted"}
    ),
    fence_not_watched: frozenset({"position", "rows", "published"}),
    dead_letter_after_the_commit: frozenset({"dead-letter"}),
    router_does_not_wait: frozenset({"router"}),
    dirty_rows_trimmed: frozenset({"rows", "position"}),
    nothing_published_again_after_a_takeover: frozenset({"published-early", "updates-final", "marker-early"}),
    ids_of_other_shards_published_again: frozenset({"tombstone"}),
    row_count_not_compared: frozenset({"rows", "rest", "updates-rows"}),
    requests_of_before_a_takeover_forgotten: frozenset({"replayed-op"}),
    requests_carried_out_again: frozenset({"replayed-op"}),
    waves_out_of_order: frozenset({"rows", "updates-rows"}),
    tombstone_with_an_older_lsn: frozenset({"tombstone", "published-early"}),
    repeated_frames_applied: frozenset({"rows", "position", "dead-letter"}),
    rows_cached_over_a_restore: frozenset({"rows", "position", "updates-rows", "rest"}),
    a_floor_that_is_not_raised: frozenset({"position", "marker"}),
    ordinals_that_go_back_with_a_restore: frozenset({"position", "marker", "rows"}),
    a_copy_swapped_in_that_is_not_whole: frozenset({"rows", "rest"}),
    a_restore_that_takes_whatever_was_prepared: frozenset({"marker", "rows", "position"}),
    a_restore_marked_behind_its_commit: frozenset({"barrier", "marker", "published-early", "marker-early"}),
}
"""Each mutation and the checks of which one has to catch it."""
