"""`driftline audit TABLE`: does Redis hold exactly what the log says?"""

from __future__ import annotations

import asyncio
from dataclasses import asdict

import orjson
import typer
from rich.console import Console
from rich.progress import Progress

from driftline.audit import TableAudit, audit_table
from driftline.audit.run import OnProgress
from driftline.cli.options import AsJson, on_rows
from driftline.cli.tables_command import reader
from driftline.config import Settings, kafka_security, signing_key
from driftline.connecting import versions_of
from driftline.frames.headers import Keyring
from driftline.log import open_log
from driftline.rows.servers import Servers
from driftline.shard.spec import TableSpec
from driftline.stack.run_file import redis_url as find_redis_url


@on_rows
def audit(
    settings: Settings,
    table: str,
    as_json: AsJson = False,
) -> None:
    """Replay the table's log and compare every row, state and position in Redis, bit for bit.

    Works while traffic flows. Needs the signing key, to refuse forged operations as the shards did.
    Status 0: the same; 1: differences, or it could not be audited.
    """
    with reader(settings) as connected:
        spec = connected.table(table).spec
    with Progress(console=Console(stderr=True), transient=True, disable=as_json) as progress:
        tasks = [progress.add_task(f"shard {shard}", total=None) for shard in range(spec.shards)]
        result = asyncio.run(
            run_audit(
                settings,
                spec,
                lambda shard, done, total: progress.update(tasks[shard], completed=done, total=total),
            )
        )
    if as_json:
        typer.echo(orjson.dumps(asdict(result) | {"ok": result.ok}, option=orjson.OPT_INDENT_2).decode())
    else:
        for line in lines(result):
            typer.echo(line)
    raise typer.Exit(0 if result.ok else 1)


async def run_audit(settings: Settings, spec: TableSpec, on_progress: OnProgress | None = None) -> TableAudit:
    """Audit a table of the deployment that `settings` name."""
    keyring = Keyring.parse(signing_key(settings))
    servers = Servers.at(find_redis_url(settings))
    async with open_log(settings.log_url, kafka_security(settings)) as log:
        return await audit_table(
            log, servers, keyring, spec.name, spec.shards, on_progress, versions_of(settings)
        )


def lines(result: TableAudit) -> list[str]:
    """Return the audit in words."""
    told = []
    for shard in result.shards:
        if shard.reason is not None:
            told.append(f"shard {shard.shard}: not audited: {shard.reason}")
        if shard.start is not None:
            told.append(f"shard {shard.shard}: from {shard.start} on: its log before is gone")
        told += [
            f"shard {shard.shard}: {each.what}: stored {each.stored}, the log gives {each.expected}"
            for each in shard.differences
        ]
        if shard.found > len(shard.differences):
            told.append(f"shard {shard.shard}: {shard.found - len(shard.differences)} more differences")
    verdict = "ok" if result.ok else "FAILED"
    told.append(f"audit of {result.table}: {verdict} ({result.rows} rows, {result.records} records replayed)")
    return told
