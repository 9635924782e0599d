"""`driftline table relog TABLE`: go on over a log that does not continue the table.

With the rows as they are stored, or from a version.
"""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Callable
from typing import Annotated

import typer
from rich.progress import Progress, TaskID

from driftline.cli.options import on_all
from driftline.cli.tables_command import reader
from driftline.cli.version_options import REFERENCE, progress, reading
from driftline.config import Settings, kafka_security, signing_key
from driftline.connecting import versions_of
from driftline.errors import InputError, PositionError, UnknownTableError
from driftline.frames.headers import Keyring
from driftline.log import check_exists, open_log
from driftline.ops.relog import Relogged, relog_shard
from driftline.ops.relog_from import Planned, VersionShard, plan_shard, put_back
from driftline.rows.servers import Servers
from driftline.rows.source import VersionSource
from driftline.stack.run_file import redis_url as find_redis_url
from driftline.versions.source import StoredVersions


@on_all
def relog(
    settings: Settings,
    table: str,
    version: Annotated[
        str | None,
        typer.Option("--from", metavar="REF", help=f"Begin with this version's rows: {REFERENCE}."),
    ] = None,
    yes: Annotated[
        bool, typer.Option("--yes", help="With --from: do not ask before records are given up.")
    ] = False,
) -> None:
    """Let every shard of TABLE that its log does not continue begin anew.

    For a gradients topic that was made anew, lost its tail, or dropped records that were not
    applied, and with --from for a Redis that came back empty or behind. Stop the aggregators first.
    Shards whose log continues them are left alone.

    Without --from the rows stay as they are, in a new log generation; records missing from the log
    stay missing, and an audit from the start is no longer possible.

    With --from rows, optimizer state and position are the version's. Where the log still holds
    everything behind it, nothing is lost; else it is said which records are, and asked. Needs the
    signing key.
    """
    if version is None:
        try:
            with reader(settings) as connected:
                shards = connected.table(table).spec.shards
        except UnknownTableError as error:
            raise UnknownTableError(f"{error}. If Redis lost it: name a version with --from") from None
        moved = asyncio.run(_relog(settings, table, shards))
        for each in moved:
            typer.echo(f"shard {each.shard}: was at offset {each.was_at}, generation {each.generation} now")
        if not moved:
            raise PositionError(f"table {table}: its log continues every shard; nothing was changed")
        return
    check_exists(settings.log_url)
    name, shards = _named(settings, version, table)
    asyncio.run(_relog_from(settings, table, shards, name, ask=not yes))


def _named(settings: Settings, ref: str, table: str) -> tuple[str, int]:
    """Return the version's own name, and how many shards of the table it has: Redis may not know it."""
    from driftline.versions import resolve

    manifest = resolve(reading(settings), ref).manifest
    return manifest.version, len(manifest.table(table).parts)


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


async def _relog_from(settings: Settings, table: str, shards: int, version: str, *, ask: bool) -> None:
    servers, versions = Servers.at(find_redis_url(settings)), versions_of(settings)
    keyring = Keyring.parse(signing_key(settings))
    plans: list[tuple[Planned, VersionShard]] = []
    async with open_log(settings.log_url, kafka_security(settings)) as log:
        for shard in range(shards):
            part = await _part(versions, version, table, shard)
            connection = await servers.open((await servers.locate(table, [shard]))[shard])
            try:
                planned = await plan_shard(connection, log, keyring, settings.group, table, shard, part)
            finally:
                await connection.close()
            if planned is not None:
                plans.append((planned, part))
    if not plans:
        raise PositionError(f"table {table}: its log continues every shard; nothing was changed")
    for planned, _ in plans:
        typer.echo(_words(table, version, planned))
    lossy = [planned for planned, _ in plans if planned.start.lost is not None]
    if ask and lossy and not typer.confirm(f"Give these records of {len(lossy)} shards up?"):
        raise InputError("nothing was changed; --yes answers beforehand")
    with progress(quiet=False) as bars:
        for planned, part in plans:
            bar = bars.add_task(f"shard {planned.shard}", total=part.rows)
            home = (await servers.locate(table, [planned.shard]))[planned.shard]
            connect = functools.partial(servers.open, home)
            await put_back(connect, table, planned, part, _counter(bars, bar))
    for planned, part in plans:
        start = planned.start
        typer.echo(
            f"shard {planned.shard}: {part.rows:,} rows of {version}, goes on at offset {start.next} of "
            f"generation {start.generation}"
        )


def _counter(bars: Progress, bar: TaskID) -> Callable[[int], None]:
    return lambda rows: bars.update(bar, completed=rows)


async def _part(versions: StoredVersions, version: str, table: str, shard: int) -> VersionShard:
    source: VersionSource = versions
    found = await source.part(version, table, shard)
    if found is None:
        raise InputError(f"version {version} has no table {table}: name another with --from")
    position = (await asyncio.to_thread(versions.replayed, version, table, shard)).position
    return VersionShard(
        version, position, found.rows, found.ordinals, found.dim, found.state_size, found.blocks
    )


def _words(table: str, version: str, planned: Planned) -> str:
    lost = planned.start.lost
    if lost is None:
        return f"shard {planned.shard}: {version}, and the log behind it: nothing is lost"
    return f"shard {planned.shard}: {version}; lost are {lost.words(table)}"
