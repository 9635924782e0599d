"""On which server each of this worker's shards is: found at takeover, changed by `move` ops.

Invariants: a shard is begun only where it is live, or, when every server has said that
it is nowhere, where its birth was ordered. A move that does not come about before the
shard leaves its source changes nothing: the shard stays and trains on. One that was cut
short after that is finished by whoever takes over. Rows that were left behind are
cleared away only when no read that saw them alive can still be under way, and when the
new server had time to write its append-only file.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence

from driftline import topics
from driftline.errors import ConfigError, FenceLostError, FrameError, PositionError, StoreUnavailableError
from driftline.frames.events import SPEC, Op, read_event
from driftline.frames.headers import Keyring
from driftline.log import Log, Record
from driftline.ops.catalogue import Born
from driftline.rows.connection import EXCHANGE_TIMEOUT
from driftline.rows.fields import delays
from driftline.rows.layout import ShardKeys
from driftline.rows.move import Switch, clear, left_position
from driftline.rows.placement import Holding, View, equal
from driftline.rows.servers import Servers
from driftline.rows.shard_store import ShardStore
from driftline.shard.screen import MAX_FRAME

_logger = logging.getLogger(__name__)
CLEAR_AFTER = EXCHANGE_TIMEOUT + 5.0
_COPY_ATTEMPTS = 8  # about seven seconds of an absent target; then the shard stays where it is
_OPS_PATIENCE = 10.0
_WAIT = 5.0

_Shard = tuple[str, int]


Move = Callable[[ShardStore, str, int, str], Awaitable[ShardStore]]
"""Moves a shard (store, table, index) to the server named and returns its store there."""


class Homes:
    """Where the shards of one worker are."""

    def __init__(self, servers: Servers, log: Log, keyring: Keyring, clear_after: float = CLEAR_AFTER):
        self._servers, self._log, self._keyring = servers, log, keyring
        self._clear_after = clear_after
        self._at: dict[_Shard, str] = {}
        self._clearing: dict[_Shard, asyncio.Task[None]] = {}

    async def settle(self, table: str, shard: int, owner: bytes) -> ShardStore:
        """Return the store of a shard for `owner`, where the shard is. Waits for servers that are away.

        Finishes a move that was cut short. Raises PositionError when the shard has been lost.
        """
        for delay in delays():
            view = (await self._servers.survey(table, [shard]))[shard]
            if view.live is not None:
                self._clear_later(table, view)
                return self._store(table, shard, view.live.server, owner)
            if not view.silent:
                if view.signpost is None:
                    return self._store(table, shard, await self._birthplace(table, shard), owner)
                await self._finish(table, shard, view.signpost, owner)
                continue
            await asyncio.sleep(delay)
        raise AssertionError("unreachable: delays never end")

    async def owner(self, table: str, shard: int) -> bytes | None:
        """Return who owns the shard, None when it is live nowhere; waits for servers that are away."""
        for delay in delays():
            view = (await self._servers.survey(table, [shard]))[shard]
            if view.live is not None:
                return view.live.owner
            if not view.silent:
                return None
            await asyncio.sleep(delay)
        raise AssertionError("unreachable: delays never end")

    async def overtaken(self, table: str, shards: Sequence[int]) -> dict[int, str]:
        """Return those of this worker's shards that are further on another server, and on which.

        That happens when a server lost the end of its file and with it the word that the shard
        had left: it came alive again, was taken over, and then the move was finished all the same.
        """
        found: dict[int, str] = {}
        if len(self._servers.names) == 1:
            return found
        for shard, view in (await self._servers.survey(table, shards)).items():
            home, live = self._at[table, shard], view.live
            if live is None or live.server == home:
                self._clear_later(table, view)
            elif any(each.server == home and each.live for each in view.holdings):
                found[shard] = live.server  # else it is just moving
        return found

    async def ops_seen(self, tables: Mapping[str, Born]) -> dict[tuple[str, int], int]:
        """Return the last op of each shard; 0, which only has ops repeated, for one on an absent server."""
        seen: dict[tuple[str, int], int] = {}
        for table, born in tables.items():
            shards = range(born.spec.shards)
            views: Mapping[int, View] = {}
            try:
                async with asyncio.timeout(_OPS_PATIENCE):
                    for delay in delays():
                        views = await self._servers.survey(table, shards)
                        if all(view.live is not None or not view.silent for view in views.values()):
                            break
                        await asyncio.sleep(delay)
            except TimeoutError:
                _logger.warning("table %s: not every shard answers; ops may be sent again", table)
            for shard in shards:
                held = views[shard].live or views[shard].signpost if shard in views else None
                seen[table, shard] = held.op if held is not None else 0
        return seen

    async def move(self, store: ShardStore, table: str, shard: int, target: str) -> ShardStore:
        """Move a shard that stands still to `target` and return its store there.

        Returns `store` when it is there already or the target cannot take it. Raises
        FenceLostError when another owner, or the target, has been further.
        """
        home, name = self._at[table, shard], f"shard {table}:{shard}"
        if target == home:
            return store
        if target not in self._servers.names:
            await self._servers.learn()
        if target not in self._servers.names or self._servers.is_cluster:
            _logger.error("%s stays on %s: no server is named %r", name, home, target)
            return store
        switch = self._switch(table, shard, home, target, store.owner)
        _logger.info("%s moves from %s to %s", name, home, target)
        overtaken = await self._copied(switch, name, home, target)
        if overtaken is None:
            return store
        left = await store.leave(target)
        await store.close()
        if overtaken:
            raise FenceLostError(f"{name}: {home} holds an old life of it, {target} has been further")
        await switch.activate(left)
        moved = self._store(table, shard, target, store.owner)
        await moved.resume(int(left[b"next"]))
        _logger.info("%s is on %s now", name, target)
        place = int(left.get(b"place", b"0"))
        behind = Holding(home, int(left[b"next"]), b"", place, target, 0, 0, int(left[b"rows"]))
        self._clear(table, shard, target, (behind,))
        return moved

    async def close(self) -> None:
        """Stop clearing away; the next takeover goes on with it."""
        for task in self._clearing.values():
            task.cancel()
        await asyncio.gather(*self._clearing.values(), return_exceptions=True)
        self._clearing.clear()

    def _store(self, table: str, shard: int, name: str, owner: bytes) -> ShardStore:
        self._at[table, shard] = name
        keys = ShardKeys.of(table, shard)
        return ShardStore(self._servers.connector(name, keys), keys, owner)

    def _switch(self, table: str, shard: int, source: str, target: str, owner: bytes) -> Switch:
        keys = ShardKeys.of(table, shard)
        source_connect = self._servers.connector(source, keys)
        return Switch(keys, source_connect, self._servers.connector(target, keys), owner)

    async def _copied(self, switch: Switch, name: str, home: str, target: str) -> bool | None:
        """Copy; True when the target has been further instead, None when it cannot be written to."""
        failure: StoreUnavailableError | None = None
        for _, delay in zip(range(_COPY_ATTEMPTS), delays(), strict=False):
            try:
                here = await left_position(switch.source, switch.keys)
                if await switch.place_on_target() > int(here.get(b"place", b"0")):
                    return True
                await switch.copy()
                return False
            except StoreUnavailableError as error:
                failure = error
                await asyncio.sleep(delay)
        _logger.error("%s stays on %s, %s cannot take it: %s. Ask again later", name, home, target, failure)
        try:
            await switch.discard()
        except StoreUnavailableError as error:
            _logger.warning("%s: the started copy on %s goes away by itself: %s", name, target, error)
        return None

    async def _finish(self, table: str, shard: int, left: Holding, owner: bytes) -> None:
        """Finish the move that ends in signpost `left`, unless somebody else does."""
        name, target = f"shard {table}:{shard}", str(left.moved_to)
        if target not in self._servers.names:
            raise PositionError(
                f"{name} left {left.server} for {target!r}, which no server knows of: "
                f"`driftline shards add-server {target} URL` makes it known again"
            )
        if left.values != left.rows:
            raise PositionError(
                f"{name} left {left.server} for {target}, {target} holds nothing of it any more, and "
                f"{left.server} has {left.values} of {left.rows} rows: {target} lost its data. "
                f"Delete the shard's keys on all servers to rebuild it from the log"
            )
        _logger.warning("%s: finishing its move from %s to %s", name, left.server, target)
        switch = self._switch(table, shard, left.server, target, owner)
        try:
            position = await left_position(switch.source, switch.keys)
            if (position.get(b"moved_to"), position.get(b"place", b"0")) != (
                target.encode(),
                b"%d" % left.place,
            ):
                return  # it has been back there since
            await switch.activate(position)
        except FenceLostError as error:
            _logger.info("%s: %s", name, error)  # somebody else finished it: the caller looks again
        except StoreUnavailableError as error:
            _logger.warning("%s: %s", name, error)

    async def _birthplace(self, table: str, shard: int) -> str:
        """Return where a shard that is nowhere yet is to be: its spec's frame in the log says it."""
        names = self._servers.names
        if len(names) == 1:
            return names[0]
        topic = topics.gradients(table)
        begin = (await self._log.bounds(topic, shard)).begin
        reader = self._log.reader(topic, shard, begin)
        try:
            while True:
                for record in await reader.read(wait=_WAIT):
                    op = self._spec_op(record)
                    if op is not None:
                        server, shards = op.body.get("server"), op.body.get("shards")
                        if isinstance(server, str) and server in names:
                            return server
                        return equal(int(str(shards)), names)[shard]
        finally:
            await reader.close()

    def _spec_op(self, record: Record) -> Op | None:
        try:
            event = read_event(record.value, limit=MAX_FRAME)
        except FrameError:
            return None
        if not isinstance(event, Op) or event.kind != SPEC:
            return None
        return event if self._keyring.verifies(record.value, record.headers) else None

    def _clear_later(self, table: str, view: View) -> None:
        clearing = self._clearing.get((table, view.shard))
        if clearing is not None and not clearing.done():
            return
        if view.live is not None and view.remains:
            self._clear(table, view.shard, view.live.server, view.remains)

    def _clear(self, table: str, shard: int, live_on: str, remains: tuple[Holding, ...]) -> None:
        previous = self._clearing.pop((table, shard), None)
        if previous is not None:
            previous.cancel()
        self._clearing[table, shard] = asyncio.create_task(
            self._clear_after_a_while(table, shard, live_on, remains), name=f"clear {table}:{shard}"
        )

    async def _clear_after_a_while(
        self, table: str, shard: int, live_on: str, remains: tuple[Holding, ...]
    ) -> None:
        keys = ShardKeys.of(table, shard)
        for each in remains:
            cleared = False
            while not cleared:
                await asyncio.sleep(self._clear_after)
                live = (await self._servers.survey(table, [shard]))[shard].live
                if live is None or live.server != live_on or live.rank <= each.rank:
                    return  # it has moved on, or come back: the next takeover sees what is left
                try:
                    source = self._servers.connector(each.server, keys)
                    cleared = await clear(source, keys, each.place, live_on)
                except (StoreUnavailableError, ConfigError) as error:
                    _logger.warning("shard %s:%d not cleared from %s: %s", table, shard, each.server, error)
            _logger.info("shard %s:%d cleared from %s", table, shard, each.server)
