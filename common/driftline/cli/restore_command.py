"""`driftline checkout` and `driftline rollback`: the live tables as they were."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated

import typer

from driftline.cli.options import AsJson, on_all, row_id
from driftline.cli.tables_command import client
from driftline.cli.version_options import (
    REFERENCE,
    LatestRef,
    TableOption,
    print_json,
    progress,
    reading,
    table_of,
)
from driftline.client import Client, Snapshot
from driftline.config import Settings
from driftline.errors import InputError, TimedOutError, VersionHeldError
from driftline.log import check_exists

if TYPE_CHECKING:
    from driftline.client import Restored
    from driftline.versions import Resolved

RECORDING = 10.0
"""Seconds to wait for the versioner, which stores a rollback as metadata alone."""

Timeout = Annotated[float, typer.Option(min=0.001, help="Seconds to wait.")]


@on_all
def checkout(
    settings: Settings,
    ref: LatestRef = "latest",
    branch: Annotated[
        str | None, typer.Option("--branch", "-b", help="Train on in this branch; made if there is none.")
    ] = None,
    scenario: Annotated[
        str | None, typer.Option("--scenario", help="Train on in this scenario, by a new major version.")
    ] = None,
    timeout: Timeout = 600.0,
    as_json: AsJson = False,
) -> None:
    """Load a version into the live tables: rows, optimizer state and all. Training goes on from it.

    Readers see the old rows until every shard has the new ones beside them. Gradients of rows that
    were read before are dropped. Needs the signing key.
    """
    check_exists(settings.log_url)
    found = resolved(settings, ref)
    if branch is not None:
        begin_branch(settings, branch, found.manifest.version)
    else:
        branch = branch_of(settings, found)
    with client(settings) as connected, progress(as_json) as bars:
        bars.add_task(f"loading {found.manifest.version}", total=None)
        done = connected.restore(
            found.manifest.version, mode="checkout", branch=branch, scenario=scenario, timeout=timeout
        )
    where = f"branch {branch}" + (f", scenario {scenario}" if scenario is not None else "")
    tell(done, f"the tables are at {done.version}; training goes on in {where}", as_json)


@on_all
def rollback(
    settings: Settings,
    to: Annotated[str, typer.Option("--to", metavar="REF", help=f"{REFERENCE}; with --ids also backup-N.")],
    ids: Annotated[
        str | None,
        typer.Option("--ids", help="Only these rows: 1,2,3; -: read from standard input."),
    ] = None,
    table: TableOption = None,
    timeout: Timeout = 600.0,
    as_json: AsJson = False,
) -> None:
    """Put all tables of the group, or single rows, back as they were, and stay on the branch.

    A rollback is a new version, that of all rows is stored as metadata alone. Gradients of rows that
    were read before are dropped. Needs the signing key.
    """
    from driftline.versions.references import backup_name, backup_of

    check_exists(settings.log_url)
    backup = backup_of(to)
    if ids is None:
        if backup is not None:
            raise InputError(f"{to} is a backup of single rows: say which with --ids, or name a version")
        found = resolved(settings, to)
        if found.reference.table is not None or table is not None:
            raise InputError("the tables of a group go back together: name no table, or rows with --ids")
        with client(settings) as connected, progress(as_json) as bars:
            bars.add_task(f"loading {found.manifest.version}", total=None)
            since = connected.run(end_of_events(settings))
            done = connected.restore(found.manifest.version, mode="rollback", timeout=timeout)
            made = recorded(connected, done.op, since)
        told = f"; recorded as {made}" if made is not None else "; a versioner has not recorded it yet"
        tell(done, f"the tables are at {done.version} again{told}", as_json)
        return
    wanted = parse_ids(ids)
    if backup is not None:
        if table is None:
            raise InputError(f"name the table of the rows with --table: {to} is of all tables")
        with client(settings) as connected, progress(as_json) as bars:
            bars.add_task(f"{len(wanted)} rows", total=None)
            done_rows = connected.roll_back_to_backup(table, wanted, backup, timeout=timeout)
        tell_rows(table, backup_name(backup), done_rows.rows, list(done_rows.absent), done_rows.ops, as_json)
        return
    found = resolved(settings, to)
    name = table_of(found, table)
    with client(settings) as connected, progress(as_json) as bars:
        bars.add_task(f"{len(wanted)} rows", total=None)
        rows = connected.restore_rows(name, wanted, found.manifest.version, timeout=timeout)
    tell_rows(name, rows.version, rows.rows, rows.absent.tolist(), rows.ops, as_json)


async def end_of_events(settings: Settings) -> int:
    """Return where the control topic goes on."""
    from driftline import topics
    from driftline.config import kafka_security
    from driftline.log import open_log

    async with open_log(settings.log_url, kafka_security(settings)) as log:
        if topics.control() not in await log.topics():
            return 0
        return (await log.bounds(topics.control(), 0)).end


def recorded(connected: Client, op: int, since: int) -> str | None:
    """Return the version that a versioner made of a rollback, None if it takes longer than a moment."""
    try:
        return connected.version_of(Snapshot(op, {}, since), timeout=RECORDING).version
    except TimedOutError:
        return None


def resolved(settings: Settings, ref: str) -> Resolved:
    """Return what a reference names. Raises UnknownVersionError with the nearest names."""
    from driftline.versions import resolve

    return resolve(reading(settings), ref)


def branch_of(settings: Settings, found: Resolved) -> str:
    """Return where training goes on by itself: in the branch that was named, else in the version's own."""
    from driftline.versions import branches

    named = found.reference.base
    return named if named in branches(reading(settings)) else found.manifest.branch


def begin_branch(settings: Settings, name: str, version: str) -> None:
    """Make a branch at `version` unless there is one whose head that is. Raises VersionHeldError."""
    from driftline.versions import branches, create_branch

    repository = reading(settings)
    known = branches(repository)
    if name not in known:
        create_branch(repository, name, version)
    elif (head := known[name]) != version:
        raise VersionHeldError(
            f"branch {name} is at {head}, not at {version}: check {name} out, or name a new branch"
        )


def parse_ids(text: str) -> list[int]:
    """Return the ids in `text`, or on standard input. Raises InputError."""
    words = sys.stdin.read().split() if text == "-" else text.split(",")
    found = sorted({row_id(word.strip()) for word in words if word.strip()})
    if not found:
        raise InputError("--ids names no row")
    return found


def tell(done: Restored, words: str, as_json: bool) -> None:
    """Print what came of a restore."""
    if as_json:
        print_json(
            {
                "version": done.version,
                "mode": done.mode,
                "op": done.op,
                "epochs": dict(done.epochs),
                "attachments": {name: each.size for name, each in done.attachments.items()},
            }
        )
        return
    typer.echo(words)
    for name, each in done.attachments.items():
        typer.echo(f"attached: {name}, {each.size:,} bytes: load it into the dense part")


def tell_rows(
    table: str, origin: str, rows: int, absent: list[int], ops: tuple[int, ...], as_json: bool
) -> None:
    """Print what came of rows put back."""
    if as_json:
        print_json({"table": table, "to": origin, "rows": rows, "absent": absent, "ops": list(ops)})
        return
    typer.echo(f"{rows} rows of {table} are as they were in {origin}")
    if absent:
        shown = ", ".join(map(str, absent[:10])) + (" …" if len(absent) > 10 else "")
        typer.echo(f"left as they are, for they had no row then: {shown}")
