"""What the commands on versions share: flags, the repository they lead to, progress.

Invariant: a command that reads gets a repository by `reading`, which makes nothing and
needs no key; one that changes what exists gets it by `writing`, which makes no store either.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated

import orjson
import typer
from rich.console import Console
from rich.progress import Progress

from driftline.config import Settings
from driftline.errors import InputError

if TYPE_CHECKING:  # the object store's client is loaded when it is needed
    from driftline.versions import Repository, Resolved

REFERENCE = "[TABLE@]VERSION|BRANCH|TAG|latest|TIME[~N]"
Ref = Annotated[str, typer.Argument(metavar="REF", help=f"{REFERENCE}.")]
LatestRef = Annotated[str, typer.Argument(metavar="REF", help=f"{REFERENCE}.")]
TableOption = Annotated[
    str | None, typer.Option("--table", help="Table, where the reference names none and there are several.")
]


def reading(settings: Settings) -> Repository:
    """Return the versions of the group. Raises ConfigError where there are none; makes nothing."""
    from driftline.versions import find_group

    return find_group(
        settings.store_url,
        settings.group,
        settings.data_dir,
        cache_dir=settings.version_cache_dir,
        cache_bytes=settings.version_cache_bytes,
    )


def tables_of(found: Resolved, table: str | None = None) -> list[str]:
    """Return the tables that a reference, or --table, names; all of the version if neither does."""
    named = {each for each in (found.reference.table, table) if each is not None}
    if len(named) > 1:
        raise InputError(f"{found.reference} and --table {table} name two tables: give one")
    for each in named:
        found.manifest.table(each)
    return sorted(named) or list(found.manifest.tables)


def table_of(found: Resolved, table: str | None = None) -> str:
    """Return the one table that a reference, or --table, names. Raises InputError naming the choice."""
    tables = tables_of(found, table)
    if len(tables) != 1:
        version = found.manifest.version
        raise InputError(
            f"{version} has the tables {', '.join(tables)}: say which, e.g. {tables[0]}@{version}"
        )
    return tables[0]


def print_json(value: object) -> None:
    """Print one JSON document."""
    typer.echo(orjson.dumps(value, option=orjson.OPT_INDENT_2).decode())


@contextmanager
def progress(quiet: bool) -> Iterator[Progress]:
    """Show bars on standard error while inside, if that is a terminal and nobody asked for JSON."""
    shown = sys.stderr.isatty() and not quiet
    with Progress(console=Console(stderr=True), transient=True, disable=not shown) as bars:
        yield bars
