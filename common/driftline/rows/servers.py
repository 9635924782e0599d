"""The Redis servers of a deployment, and on which of them a shard is.

Invariant: what is cached here is a hint. A shard's own `w` says where it is, and a
reader that meets a signpost, or nothing, forgets the hint and asks all servers again.
Nothing is called absent from everywhere before every known server has answered.

Servers beyond the configured ones are kept in the hash `dl:servers` of every server,
without credentials: those come from the configured URL.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from typing import cast

from driftline.errors import ConfigError, StoreUnavailableError
from driftline.rows import placement, resp
from driftline.rows.address import CLUSTER, Address, check_server_name, parse, with_login_of
from driftline.rows.cluster import Open, SlotMap
from driftline.rows.connection import Connect, Connection, RedisConnection, Reply
from driftline.rows.layout import ShardKeys
from driftline.rows.nodes import Node, Single, bound
from driftline.rows.placement import Holding, View
from driftline.rows.resp import Bytes

REGISTRY = b"dl:servers"
ONLY = "redis"
"""Name of the one server that is given as a connect function."""

_GRACE = 0.1  # seconds that servers have to answer once every shard was found somewhere
_SWITCH = 0.01  # between two looks at a shard that is just changing servers
_SWITCH_LOOKS = 300


class Servers:
    """All servers by name, and the last known places of shards."""

    def __init__(self, nodes: Mapping[str, Node], *, model: str | None = None, open_url: Open | None = None):
        self._nodes = dict(sorted(nodes.items()))
        self._model, self._open = model, open_url
        self._first = self.names[0]  # of those configured: it stays the same when servers are added
        self._homes: dict[tuple[str, int], str] = {}
        self._registered: dict[str, str] = {}  # added servers -> URL without credentials
        self._settled = len(self._nodes) == 1  # one server that nobody was sent away from holds all

    @classmethod
    def at(cls, redis_url: str, open_url: Open = RedisConnection.open) -> Servers:
        """Return the servers that a redis_url names. Raises ConfigError."""
        return cls.of(parse(redis_url), open_url)

    @classmethod
    def of(cls, address: Address, open_url: Open = RedisConnection.open) -> Servers:
        """Return the servers of an address."""
        if address.cluster:
            return cls({CLUSTER: SlotMap(address.cluster, open_url)}, open_url=open_url)
        nodes = {name: Single(url, bound(open_url, url)) for name, url in address.servers.items()}
        return cls(nodes, model=next(iter(address.servers.values())), open_url=open_url)

    @classmethod
    def by_connect(cls, connects: Mapping[str, Connect]) -> Servers:
        """Return servers reached by functions: what the simulation has instead of URLs."""
        return cls({name: Single(name, connect) for name, connect in connects.items()})

    @property
    def names(self) -> tuple[str, ...]:
        """The servers known now, in order."""
        return tuple(self._nodes)

    @property
    def several(self) -> bool:
        """Whether a shard may be on another process than before."""
        return not self._settled or self.is_cluster

    @property
    def is_cluster(self) -> bool:
        """Whether Redis itself places shards."""
        return CLUSTER in self._nodes

    def connector(self, name: str, keys: ShardKeys) -> Connect:
        """Return what connects to server `name` for a shard. Raises ConfigError for an unknown name."""
        return self._node(name).connector(keys.position)

    def aside(self, keys: ShardKeys) -> Connect:
        """Return what connects to the place of a position that has no rows and never moves."""
        return self._nodes[self._first].connector(keys.position)

    async def open(self, endpoint: str) -> Connection:
        """Connect to an endpoint that `locate` named."""
        if self._open is not None:
            return await self._open(endpoint)
        return await self._node(endpoint).connector(b"")()

    def known(self, table: str, shards: Iterable[int]) -> dict[int, str] | None:
        """Return the endpoint of each shard if all are known without asking."""
        found: dict[int, str] = {}
        only = self._nodes[self._first] if self._settled else None
        if isinstance(only, Single):
            return dict.fromkeys(shards, only.url)
        for shard in shards:
            home = (
                self._homes.get((table, shard))
                if only is None
                else only.known(ShardKeys.of(table, shard).position)
            )
            if home is None:
                return None
            found[shard] = home
        return found

    async def locate(self, table: str, shards: Sequence[int]) -> dict[int, str]:
        """Return the endpoint of each shard, of the first server for shards that are nowhere yet.

        Raises StoreUnavailableError when a server that may hold one of them does not answer.
        """
        if (known := self.known(table, shards)) is not None:
            return known
        if self._settled:
            node = self._nodes[self._first]
            return {shard: await node.endpoint(ShardKeys.of(table, shard).position) for shard in shards}
        for _ in range(_SWITCH_LOOKS):
            views = await self.survey(table, shards)
            if all(view.live is not None or view.signpost is None for view in views.values()):
                break
            await asyncio.sleep(_SWITCH)  # between leaving a server and being live on the next
        found: dict[int, str] = {}
        for shard, view in views.items():
            live = view.live
            if live is None and (view.silent or view.signpost is not None):
                where = f"may be on {', '.join(view.silent)}" if view.silent else "is between two servers"
                raise StoreUnavailableError(f"shard {table}:{shard} {where}, which does not answer now")
            name = live.server if live is not None else self._first
            found[shard] = await self._node(name).endpoint(ShardKeys.of(table, shard).position)
            if live is not None:
                self._homes[table, shard] = found[shard]
        return found

    async def forget(self, table: str, shards: Iterable[int]) -> None:
        """Look for these shards anew: they are not where they were last known to be."""
        slots = self._nodes.get(CLUSTER)
        if isinstance(slots, SlotMap):
            await slots.changed()
            return
        self._settled = False
        for shard in shards:
            self._homes.pop((table, shard), None)

    async def survey(self, table: str, shards: Sequence[int]) -> dict[int, View]:
        """Ask all servers at once what they hold of these shards.

        Returns when all have answered or failed, or soon after every shard was found live: a
        server that is away does not delay the shards of others. Raises ConfigError.
        """
        holdings: dict[int, list[Holding]] = {shard: [] for shard in shards}
        answered: set[str] = set()
        pending: set[asyncio.Task[tuple[str, dict[str, str]]]] = set()

        def ask(names: Iterable[str]) -> None:
            for name in names:
                pending.add(asyncio.create_task(self._ask(name, table, holdings)))

        ask(self.names)
        try:
            while pending:
                found = bool(holdings) and all(any(each.live for each in held) for held in holdings.values())
                done, _ = await asyncio.wait(
                    pending, timeout=_GRACE if found else None, return_when=asyncio.FIRST_COMPLETED
                )
                if not done:
                    break
                pending -= done
                for task in done:
                    try:
                        name, registered = task.result()
                    except StoreUnavailableError:
                        continue
                    answered.add(name)
                    ask(self._enter(registered))
        finally:
            for task in pending:
                task.cancel()
            await asyncio.gather(*pending, return_exceptions=True)
        silent = tuple(name for name in self.names if name not in answered)
        return {shard: View(shard, tuple(held), silent) for shard, held in holdings.items()}

    async def learn(self) -> tuple[str, ...]:
        """Read the names of added servers and return those of all. Raises StoreUnavailableError."""
        await self.survey("", [])  # the names come with every answer
        return self.names

    async def probe(self, name: str, url: str) -> None:
        """Take server `name` into use in this process. Raises ConfigError for a name that is taken."""
        if self.is_cluster:
            raise ConfigError("a Redis Cluster places shards itself: add the node with redis-cli --cluster")
        check_server_name(name)
        if name in await self.learn():
            raise ConfigError(f"a Redis server is named {name!r} already")
        self._enter({name: url})

    async def add(self, name: str, url: str) -> None:
        """Have every process use server `name`, which was probed. `url` has no credentials.

        Raises StoreUnavailableError.
        """
        if silent := (await self.survey("", [0]))[0].silent:
            raise StoreUnavailableError(f"{', '.join(silent)} must know of {name} too, and does not answer")
        pairs = [part.encode() for item in self._registered.items() for part in item]
        for each in self.names:
            (reply,) = await self.ask(each, b"HSET", REGISTRY, *pairs)
            if isinstance(reply, Exception):
                raise StoreUnavailableError(f"{each} refused to note server {name}: {reply}")

    async def endpoints(self, name: str) -> tuple[str, ...]:
        """Return the endpoints of all processes of a server. Raises StoreUnavailableError, ConfigError."""
        return await self._node(name).endpoints()

    async def ask(self, name: str, *command: bytes) -> list[Reply]:
        """Return the replies of all processes of a server to a command without a key.

        Raises StoreUnavailableError, ConfigError.
        """
        replies: list[Reply] = []
        for endpoint in await self.endpoints(name):
            connection = await self.open(endpoint)
            try:
                replies += await connection.exchange([resp.command(*command)], 1)
            finally:
                await connection.close()
        return replies

    async def _ask(
        self, name: str, table: str, holdings: dict[int, list[Holding]]
    ) -> tuple[str, dict[str, str]]:
        """Enter what one server holds of the shards; return its name and the servers it tells of."""
        node = self._node(name)
        by_endpoint: dict[str, list[int]] = {}
        for shard in holdings:
            key = ShardKeys.of(table, shard).position
            by_endpoint.setdefault(await node.endpoint(key), []).append(shard)
        told = await asyncio.gather(
            *(self._ask_one(name, table, part, holdings) for part in by_endpoint.values())
        )
        if not by_endpoint:
            told = [await self._ask_one(name, table, [], holdings)]
        return name, {key: url for each in told for key, url in each.items()}

    async def _ask_one(
        self, name: str, table: str, shards: Sequence[int], holdings: dict[int, list[Holding]]
    ) -> dict[str, str]:
        packed: list[Bytes] = [] if self.is_cluster else [resp.command(b"HGETALL", REGISTRY)]
        for shard in shards:
            keys = ShardKeys.of(table, shard)
            packed.append(resp.command(b"HMGET", keys.position, *placement.FIELDS))
            packed.append(resp.command(b"HLEN", keys.values))
        if not packed:
            return {}
        key = ShardKeys.of(table, shards[0]).position if shards else b""
        connection = await self._node(name).connector(key)()
        try:
            replies = await connection.exchange(packed, len(packed))
        finally:
            await connection.close()
        for reply in replies:
            if isinstance(reply, Exception):
                await self._moved(name)
                raise StoreUnavailableError(f"{name} refused a read: {reply}")
        registered: dict[str, str] = {}
        if not self.is_cluster:
            flat = [each.decode() for each in cast("list[bytes]", replies.pop(0))]
            registered = dict(zip(flat[::2], flat[1::2], strict=True))
        for shard, fields, values in zip(shards, replies[::2], replies[1::2], strict=True):
            held = placement.read_holding(name, cast("list[bytes | None]", fields), cast("int", values))
            if held is not None:
                holdings[shard].append(held)
        return registered

    async def _moved(self, name: str) -> None:
        node = self._nodes[name]
        if isinstance(node, SlotMap):
            await node.changed()

    def _enter(self, registered: Mapping[str, str]) -> list[str]:
        """Take over servers told of by others; return the names of those that are new and reachable."""
        if self._model is None or self._open is None:
            return []
        new = [name for name in registered if name not in self._nodes]
        for name in new:
            url = with_login_of(registered[name], self._model)
            self._nodes[name] = Single(url, bound(self._open, url))
            self._registered[name] = registered[name]
        if new:
            self._nodes = dict(sorted(self._nodes.items()))
            self._settled = False
        return new

    def _node(self, name: str) -> Node:
        node = self._nodes.get(name)
        if node is None:
            raise ConfigError(f"no Redis server is named {name!r}; known are {', '.join(self._nodes)}")
        return node
