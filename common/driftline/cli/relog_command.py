"""`driftline table relog TABLE`: go on with the stored rows over a log that begins anew."""

from __future__ import annotations

import asyncio

import typer

from driftline.cli.options import ConfigFile, DataDir, Group, LogUrl, RedisUrl, settings_of
from driftline.cli.tables_command import reader
from driftline.config import Settings, kafka_security
from driftline.errors import PositionError
from driftline.log import open_log
from driftline.ops.relog import Relogged, relog_shard
from driftline.rows.servers import Servers
from driftline.stack.run_file import redis_url as find_redis_url


def relog(
    table: str,
    log_url: LogUrl = None,
    redis_url: RedisUrl = None,
    group: Group = None,
    data_dir: DataDir = None,
    config: ConfigFile = None,
) -> None:
    """Start a new log generation for every shard of TABLE that its log does not continue.

    For a gradients topic that was made anew, lost its tail, or dropped records that were not
    applied. The rows stay as they are; records missing from the log stay missing, and an
    audit from the start is no longer possible. Stop the aggregators first. Shards whose log
    continues them are left alone.
    """
    settings = settings_of(log_url, redis_url, group, data_dir, config)
    with reader(settings) as connected:
        shards = connected.table(table).spec.shards
    moved = asyncio.run(_relog(settings, table, shards))
    for each in moved:
        typer.echo(f"shard {each.shard}: was at offset {each.was_at}, generation {each.generation} now")
    if not moved:
        raise PositionError(f"table {table}: its log continues every shard; nothing was changed")


async def _relog(settings: Settings, table: str, shards: int) -> list[Relogged]:
    servers = Servers.at(find_redis_url(settings))
    moved = []
    async with open_log(settings.log_url, kafka_security(settings)) as log:
        for shard in range(shards):
            connection = await servers.open((await servers.locate(table, [shard]))[shard])
            try:
                each = await relog_shard(connection, log, settings.group, table, shard)
            finally:
                await connection.close()
            if each is not None:
                moved.append(each)
    return moved
