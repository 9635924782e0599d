"""Loads the version that a shard is to be restored to, while the shard trains on.

Invariants: at most one copy of a shard is being made; what a restore swaps in is a complete
copy of the very version that it names. A version that cannot be loaded is said in `w`, in
the log and by readiness, and is tried again: whoever puts a missing object back need not
tell anybody. Training waits for a copy at a `restore` only.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import repeat

import orjson

from driftline.errors import (
    ConfigError,
    DriftlineError,
    FenceLostError,
    RetryError,
    StoreUnavailableError,
)
from driftline.rows import resp
from driftline.rows.layout import RowLayout
from driftline.rows.shard_store import ShardStore
from driftline.rows.source import VersionSource
from driftline.rows.staging import (
    FAILED,
    READY,
    RENEW_EVERY,
    STAGED,
    Copy,
    Staged,
    StagedLostError,
    Swap,
    check_fits,
    remove,
    renewal,
    write_copy,
)
from driftline.shard.machine import Delta, Shard
from driftline.shard.restore import Preparation, preparation

_logger = logging.getLogger(__name__)
_TRY_AGAIN = (0.5, 2.0, 5.0)
"""Seconds between attempts, the last one for ever: a store that is away comes back, one that lacks an
object may be mended. A whole shard is read each time."""

_REMOVING = 5.0  # seconds that removing a copy may take; it lapses by itself
_EVERY_ROWS = 1 << 20  # loaded between two lines in the log


class Restoring:
    """The copies that one owner of one shard makes.

    Parameters
    ----------
    versions: where versions are read, also by its owner; None for a worker without a version store.
    fail: told what ends this owner's work: a lost fence, or a bug.
    """

    def __init__(
        self, table: str, shard: int, versions: VersionSource | None, fail: Callable[[BaseException], None]
    ) -> None:
        self._table, self._index, self.versions, self._fail = table, shard, versions, fail
        self._store: ShardStore | None = None
        self._task: asyncio.Task[None] | None = None
        self._done: asyncio.Future[Staged | None] | None = None
        self.wanted: Preparation | None = None  # what is being loaded, or is
        self.failure: str | None = None  # why it is not there, while it is not
        self.rows = 0  # of it that are loaded

    async def follow(self, store: ShardStore, shard: Shard) -> None:
        """Load what the position says is to be loaded, on the server of `store`, and nothing else."""
        wanted = preparation(shard.position.prep)
        if wanted != self.wanted:
            await self.drop()
            if wanted is not None:
                self.begin(store, RowLayout.of(shard.spec), wanted)

    def begin(self, store: ShardStore, layout: RowLayout, wanted: Preparation) -> None:
        """Start to load `wanted` into a fresh copy on the server of `store`."""
        assert self._task is None, "one copy at a time: drop the last one first"
        self._store, self.wanted = store, wanted
        self._done = asyncio.get_running_loop().create_future()
        work = self._work(store, layout, wanted, self._done)
        self._task = asyncio.create_task(work, name=f"load {wanted.version} for {self._name}")

    async def staged(self, store: ShardStore, layout: RowLayout, wanted: Preparation) -> Staged:
        """Return a complete copy of the version of `wanted`, however long it takes."""
        if self.wanted is None or self.wanted.version != wanted.version:
            await self.drop()
            self.begin(store, layout, wanted)
        assert self._done is not None, "something is being loaded"
        found = await asyncio.shield(self._done)
        if found is None:
            self.failure = f"version {wanted.version} has no table {self._table!r}, and the log says it has"
            _logger.error("%s waits at a restore: %s", self._name, self.failure)
            await asyncio.Event().wait()
        assert found is not None, "else it waits for ever"
        return found

    async def swap_in(
        self, store: ShardStore, layout: RowLayout, delta: Delta, published: int, swap: Swap
    ) -> None:
        """Make a restore durable: see `ShardStore.swap`. A copy that was lost meanwhile is made again."""
        while True:
            try:
                await store.swap(delta, published, swap)
                self.forget()
                return
            except StagedLostError as error:
                swap = replace(swap, staged=await self._again(store, layout, error))

    async def _again(self, store: ShardStore, layout: RowLayout, lost: StagedLostError) -> Staged:
        _logger.warning("%s; loading it again", lost)
        wanted = self.wanted
        assert wanted is not None, "a copy of it was complete"
        await self.drop()
        return await self.staged(store, layout, wanted)

    async def drop(self) -> None:
        """Stop, and remove the copy, if there is one."""
        store, wanted = self._store, self.wanted
        await self.close()
        self.forget()
        if store is not None and wanted is not None:
            await self._remove(store, self._copy(store, wanted))

    def forget(self) -> None:
        """The copy is the shard now: stop renewing it."""
        if self._task is not None:
            self._task.cancel()
        self._task = self._done = self._store = None
        self.wanted = self.failure = None
        self.rows = 0

    async def close(self) -> None:
        """Stop at once; the next owner removes what is left."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    @property
    def _name(self) -> str:
        return f"shard {self._table}:{self._index}"

    def _copy(self, store: ShardStore, wanted: Preparation) -> Copy:
        # the same name at each attempt: what arrives late of an earlier one is the same rows
        return Copy.of(store.keys, b"%d.%b" % (wanted.op, store.owner))

    async def _work(
        self, store: ShardStore, layout: RowLayout, wanted: Preparation, done: asyncio.Future[Staged | None]
    ) -> None:
        try:
            staged = await self._load(store, layout, wanted)
            done.set_result(staged)
            while staged is not None:
                await asyncio.sleep(RENEW_EVERY)
                await store.note(*renewal(staged.copy))
        except Exception as error:  # noqa: BLE001 - nobody else would hear of it
            self._fail(error)

    async def _load(self, store: ShardStore, layout: RowLayout, wanted: Preparation) -> Staged | None:
        """Return the complete copy, however often it takes; None where the version has no such table."""
        position, copy = store.keys.position, self._copy(store, wanted)
        await store.note(resp.command(b"HSET", position, STAGED, copy.name))
        for delay in _delays():
            try:
                staged = await self._attempt(store, layout, wanted, copy)
                ready = resp.command(b"HSET", position, READY, b"%d" % wanted.op)
                await store.note(ready, resp.command(b"HDEL", position, FAILED))
                self.failure = None
                _logger.info("%s: version %s is ready, %d rows", self._name, wanted.version, self.rows)
                return staged
            except FenceLostError:
                raise
            except DriftlineError as error:
                await self._remove(store, copy)
                await self._say(store, wanted, error)
                await asyncio.sleep(delay)
        raise AssertionError("unreachable: delays never end")

    async def _attempt(
        self, store: ShardStore, layout: RowLayout, wanted: Preparation, copy: Copy
    ) -> Staged | None:
        if self.versions is None:
            raise ConfigError("this worker has no version store: give it the `store_url`")
        part = await self.versions.part(wanted.version, self._table, self._index)
        if part is None:
            return None
        check_fits(wanted.version, self._table, layout, part.dim, part.state_size)
        _logger.info("%s: loading version %s, %d rows", self._name, wanted.version, part.rows)
        rows = await write_copy(store.connect, copy, layout, part.blocks(), self._wrote)
        if rows != part.rows:
            raise StagedLostError(f"version {wanted.version} gave {rows} of {part.rows} rows of {self._name}")
        return Staged(copy, wanted.version, rows, rows if layout.separate_state else 0, part.ordinals)

    def _wrote(self, rows: int) -> None:
        if rows // _EVERY_ROWS > self.rows // _EVERY_ROWS:
            _logger.info("%s: %d rows loaded", self._name, rows)
        self.rows = rows

    async def _remove(self, store: ShardStore, copy: Copy) -> None:
        try:
            async with asyncio.timeout(_REMOVING):
                await remove(store.connect, copy.values, copy.state)
        except (RetryError, TimeoutError) as error:
            _logger.warning("%s goes away by itself: %s", copy.values.decode(), error)

    async def _say(self, store: ShardStore, wanted: Preparation, error: DriftlineError) -> None:
        text = f"version {wanted.version} cannot be loaded: {error}"
        if text != self.failure:
            _logger.error("%s: %s. Training goes on; it is tried again", self._name, text)
        self.failure, self.rows = text, 0
        if not isinstance(error, StoreUnavailableError):  # which would not take this either
            said = {"op": wanted.op, "version": wanted.version, "code": error.code, "message": text}
            await store.note(resp.command(b"HSET", store.keys.position, FAILED, orjson.dumps(said)))


def _delays() -> Iterator[float]:
    yield from _TRY_AGAIN
    yield from repeat(_TRY_AGAIN[-1])
