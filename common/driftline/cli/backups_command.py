"""`driftline backups`: what a versioner holds in memory, for rows to go back to."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING

import typer

from driftline.cli.options import AsJson, on_log
from driftline.cli.version_options import print_json
from driftline.config import Settings, kafka_security
from driftline.log import check_exists, open_log
from driftline.versions.references import backup_name
from driftline.versions.wording import columns, moment, size

if TYPE_CHECKING:
    from driftline.control.held import Held


@on_log
def backups(
    settings: Settings,
    as_json: AsJson = False,
) -> None:
    """List the backups in memory, oldest first: `driftline rollback --ids … --to backup-N` uses them."""
    from driftline.control.held import held_backups, told_of

    check_exists(settings.log_url)

    async def run() -> Sequence[Held]:
        async with open_log(settings.log_url, kafka_security(settings)) as log:
            return held_backups(await told_of(log, settings.group))

    found = asyncio.run(run())
    if as_json:
        print_json(
            [
                {"backup": backup_name(each.op), **asdict(each), "time": moment(each.time / 1000)}
                for each in found
            ]
        )
        return
    for line in columns(
        [
            (
                backup_name(each.op),
                moment(each.time / 1000),
                f"{each.rows:,} rows stored",
                size(each.bytes),
                ", ".join(each.tables) if each.whole else f"only {shards_in_words(each)}",
            )
            for each in found
        ]
    ):
        typer.echo(line)


def shards_in_words(held: Held) -> str:
    """Return which shards a backup has."""
    return ", ".join(f"{table}:{','.join(map(str, shards))}" for table, shards in held.tables.items())
