"""`driftline report`: one HTML page on versions, alarms and what changed between two versions."""

from __future__ import annotations

import asyncio
import os
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from driftline.cli.options import for_settings
from driftline.cli.version_options import REFERENCE, progress, reading
from driftline.config import Settings, kafka_security
from driftline.errors import ConfigError, InputError, RetryError

if TYPE_CHECKING:
    from driftline.control import Told
    from driftline.report import Domains, Report


@for_settings("store_url", "log_url", "group", "data_dir", "config")
def report(
    settings: Settings,
    out: Annotated[Path, typer.Option("--out", help="File to write.")] = Path("report.html"),
    before: Annotated[
        str | None,
        typer.Option("--from", metavar="REF", help=f"{REFERENCE}; default: the parent of --to."),
    ] = None,
    after: Annotated[str, typer.Option("--to", metavar="REF", help=f"{REFERENCE}.")] = "latest",
    table: Annotated[
        list[str] | None, typer.Option("--table", help="Table to compare; may be given twice.")
    ] = None,
    domains: Annotated[
        list[str] | None,
        typer.Option(
            metavar="TABLE=FILE", help="Domains of a table's rows, CSV lines id,domain; repeatable."
        ),
    ] = None,
    view: Annotated[
        list[str] | None,
        typer.Option(metavar="pca|tsne|umap", help="Reduction to draw; repeatable; default: all installed."),
    ] = None,
) -> None:
    """Write one HTML page: timeline, alarms, lineage, and two versions compared row by row.

    The page needs no other file and no network. Large tables are sampled; the page says by how much.
    """
    from driftline.report import Ask, gather, render

    if not out.absolute().parent.is_dir():
        raise InputError(f"--out {str(out)!r}: its directory does not exist")
    ask = Ask(before, after, tuple(table or ()), _domains(domains or []))
    if view:
        ask = replace(ask, reductions=tuple(view))
    repository = reading(settings)
    told, notes = _told(settings)
    with progress(False) as bars:
        task = bars.add_task("report", total=None)
        made = gather(
            repository,
            told,
            ask,
            f"driftline {version('driftline')}",
            notes=notes,
            on_step=lambda what: bars.update(task, description=what),
        )
    page = render(made).encode()
    _write(out, page)
    typer.echo(_said(out, made, len(page)))


def _said(out: Path, made: Report, size: int) -> str:
    compared = f"{made.before} -> {made.after}" if made.before else made.after
    drawn = [f"{each.table}: {each.sampled:,} of {each.rows_after:,} rows" for each in made.tables]
    return f"{out}: {'; '.join([compared, *drawn])}; {size / 1e6:.1f} MB"


def _told(settings: Settings) -> tuple[list[Told], list[str]]:
    """Return what the control topic tells, or why it tells nothing."""
    from driftline.control.held import told_of
    from driftline.log import check_exists, open_log

    async def run() -> list[Told]:
        async with open_log(settings.log_url, kafka_security(settings)) as log:
            return await told_of(log, settings.group)

    try:
        check_exists(settings.log_url)
        return asyncio.run(run()), []
    except (ConfigError, RetryError) as error:
        return [], [f"The control topic could not be read, so only versions are shown: {error}"]


def _domains(given: list[str]) -> dict[str, Domains]:
    from driftline.report import read_domains

    found = {}
    for each in given:
        table, equals, path = each.partition("=")
        if not (table and equals and path):
            raise InputError(f"--domains {each!r}: write TABLE=FILE")
        found[table] = read_domains(Path(path))
    return found


def _write(path: Path, page: bytes) -> None:
    """Write the page in one piece: whoever looks meanwhile sees the one before."""
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        beside.write_bytes(page)
        beside.replace(path)
    except OSError as error:
        beside.unlink(missing_ok=True)
        raise InputError(f"--out {str(path)!r}: {error.strerror or error}") from error
