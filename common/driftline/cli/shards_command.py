"""`driftline shards`: where the shards of a table are, moving one, and adding a Redis server."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Annotated

import orjson
import typer

from driftline.cli.options import NEGATIVE_NUMBERS, AsJson, on_rows
from driftline.cli.tables_command import client, reader
from driftline.client.operations import Operations, Requested
from driftline.config import Settings, kafka_security, redact_url, signing_key
from driftline.errors import ConfigError, StoreUnavailableError, TimedOutError
from driftline.frames.headers import Keyring
from driftline.ids import producer_id
from driftline.log import open_log
from driftline.rows import resp
from driftline.rows.address import without_login
from driftline.rows.layout import ShardKeys
from driftline.rows.memory import check_eviction
from driftline.rows.placement import Holding
from driftline.rows.servers import Servers
from driftline.stack.run_file import redis_url as find_redis_url

app = typer.Typer(help="See where shards are, move them, add Redis servers.", no_args_is_help=True)
_POLL = 0.1


@dataclass(frozen=True, slots=True)
class Place:
    """One shard as `shards ls` shows it."""

    shard: int
    server: str | None  # None: live nowhere now
    address: str | None
    rows: int
    next: int
    owner: str
    memory_bytes: int


@app.command("ls")
@on_rows
def list_shards(
    settings: Settings,
    table: str,
    as_json: AsJson = False,
) -> None:
    """Print server, rows, next offset, owner and memory of each shard."""
    with reader(settings) as connected:
        shards = connected.table(table).spec.shards
    places = asyncio.run(_places(Servers.at(find_redis_url(settings)), table, shards))
    if as_json:
        typer.echo(orjson.dumps([asdict(each) for each in places], option=orjson.OPT_INDENT_2).decode())
        return
    typer.echo("shard  server                    rows        next      memory  owner")
    for each in places:
        typer.echo(
            f"{each.shard:5}  {each.server or 'nowhere':20} {each.rows:9,} {each.next:11,} "
            f"{each.memory_bytes / 2**20:8.1f} MiB  {each.owner}"
        )


@app.command(context_settings=NEGATIVE_NUMBERS)
@on_rows
def move(
    settings: Settings,
    table: str,
    shard: int,
    server: str,
    wait: Annotated[bool, typer.Option("--wait", help="Return when the shard is there.")] = False,
    timeout: Annotated[float, typer.Option(help="Seconds to wait.")] = 300.0,
) -> None:
    """Move a shard to another Redis server; only its own training waits meanwhile."""
    servers = Servers.at(find_redis_url(settings))
    asyncio.run(_check_target(servers, server))
    with client(settings) as connected:
        asked = connected.move_shard(table, shard, server)
    if not wait:
        typer.echo(f"asked for (op {asked.number}): shard {table}:{shard} to {server}")
        return
    there = asyncio.run(_wait(settings, servers, table, shard, asked, timeout))
    if there != server:
        raise StoreUnavailableError(
            f"shard {table}:{shard} stayed on {there}: the aggregator's log says why; ask again"
        )
    typer.echo(f"shard {table}:{shard} is on {server}")


@app.command("add-server")
@on_rows
def add_server(
    settings: Settings,
    name: str,
    url: Annotated[str, typer.Argument(help="redis://host:port/database, without user and password.")],
) -> None:
    """Let every process use one more Redis server, by the user and password of the configured ones."""
    if without_login(url) != url:
        raise ConfigError(
            f"{redact_url(url)}: leave user, password and options out; those of redis_url are used"
        )
    asyncio.run(_add(Servers.at(find_redis_url(settings)), name, url))
    typer.echo(f"server {name} can take shards now: driftline shards move TABLE SHARD {name}")


async def _add(servers: Servers, name: str, url: str) -> None:
    await servers.probe(name, url)
    await check_eviction(servers, name)
    await servers.add(name, url)


async def _check_target(servers: Servers, server: str) -> None:
    if servers.is_cluster:
        raise ConfigError("a Redis Cluster places shards itself: use redis-cli --cluster reshard")
    names = await servers.learn()
    if server not in names:
        raise ConfigError(f"no Redis server is named {server!r}; known are {', '.join(names)}")


async def _wait(
    settings: Settings, servers: Servers, table: str, shard: int, asked: Requested, timeout: float
) -> str:
    keyring = Keyring.parse(signing_key(settings))
    async with open_log(settings.log_url, kafka_security(settings)) as log:
        operations = Operations(log, settings.group, keyring, producer_id())
        try:
            return await operations.wait(asked, _passed(servers, table, shard, asked.number), timeout)
        except TimeoutError:
            raise TimedOutError(
                f"op {asked.number}: shard {table}:{shard} did not pass it within {timeout} s"
            ) from None


async def _passed(servers: Servers, table: str, shard: int, number: int) -> str:
    """Wait until the shard has passed op `number`, and return the server that it is on then."""
    while True:
        view = (await servers.survey(table, [shard]))[shard]
        if view.live is not None and view.live.op >= number:
            return view.live.server
        await asyncio.sleep(_POLL)


async def _places(servers: Servers, table: str, shards: int) -> Sequence[Place]:
    views = await servers.survey(table, range(shards))
    return [await _place(servers, table, shard, views[shard].live) for shard in range(shards)]


async def _place(servers: Servers, table: str, shard: int, live: Holding | None) -> Place:
    if live is None:
        return Place(shard, None, None, 0, 0, "", 0)
    keys = ShardKeys.of(table, shard)
    (home,) = (await servers.locate(table, [shard])).values()
    connection = await servers.connector(live.server, keys)()
    try:
        asked = [resp.command(b"MEMORY", b"USAGE", key) for key in (keys.values, keys.state, keys.position)]
        used = await connection.exchange(asked, len(asked))
    finally:
        await connection.close()
    memory = sum(each for each in used if isinstance(each, int))
    owner = live.owner.decode(errors="replace")
    return Place(shard, live.server, without_login(home), live.values, live.next, owner, memory)
