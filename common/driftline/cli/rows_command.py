"""`driftline blame` and `driftline explain`: where a row comes from."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import numpy as np
import typer

from driftline.cli.options import AsJson, on_versions, row_id
from driftline.cli.version_options import LatestRef, Ref, TableOption, print_json, progress, reading, table_of
from driftline.config import Settings
from driftline.errors import InputError
from driftline.ids import lsn_generation, lsn_offset
from driftline.versions.wording import columns, moment

if TYPE_CHECKING:
    from driftline.versions import Change, Explanation

RowId = Annotated[str, typer.Argument(metavar="ID", help="0 to 2^64 - 1.")]


@on_versions
def blame(
    settings: Settings,
    row: RowId,
    ref: LatestRef = "latest",
    table: TableOption = None,
    as_json: AsJson = False,
) -> None:
    """List the versions that changed a row, newest first, with the segment and the record that did."""
    from driftline.versions import blame as changes_of
    from driftline.versions import resolve

    number = row_id(row)
    repository = reading(settings)
    found = resolve(repository, ref)
    name = table_of(found, table)
    with progress(as_json) as bars:
        bars.add_task("versions", total=None)
        changes = list(changes_of(repository, found.manifest, name, number))
    if as_json:
        print_json({"table": name, "id": number, "changes": [change_as_dict(each) for each in changes]})
        return
    if not changes:
        typer.echo(f"{name} has no row {number} in {found.manifest.version}, nor in the versions before it")
    for line in change_lines(changes):
        typer.echo(line)


@on_versions
def explain(
    settings: Settings,
    row: RowId,
    ref: Ref,
    table: TableOption = None,
    as_json: AsJson = False,
) -> None:
    """Say which segment of which version holds a row, which stretch of the log made it, and the row."""
    from driftline.versions import TableReader, resolve
    from driftline.versions import explain as explanation_of

    number = row_id(row)
    repository = reading(settings)
    found = resolve(repository, ref)
    name = table_of(found, table)
    told = explanation_of(repository, found.manifest, name, number)
    if told is None:
        raise InputError(f"{name} has no row {number} in {found.manifest.version}")
    reader = TableReader(repository.cache, found.manifest, name)
    values = reader.rows(np.array([number], np.uint64)).rows
    if as_json:
        more = {"table": name, "row": values.rows[0].tolist(), "state": values.state[0].tolist()}
        print_json(asdict(told) | more)
        return
    for line in lines(name, told):
        typer.echo(line)
    typer.echo(f"row        {np.array2string(values.rows[0], threshold=8)}")


def change_as_dict(change: Change) -> dict[str, object]:
    """Return a change for JSON."""
    place = {"generation": lsn_generation(change.lsn), "offset": lsn_offset(change.lsn)} if change.lsn else {}
    return asdict(change) | {"created": moment(change.created)} | place


def change_lines(changes: Sequence[Change]) -> list[str]:
    """Return changes in words."""
    return columns(
        [
            (
                each.version,
                moment(each.created),
                each.kind,
                f"record {lsn_offset(each.lsn)}" if each.lsn else "-",
                each.segment or "-",
            )
            for each in changes
        ]
    )


def lines(table: str, told: Explanation) -> Iterator[str]:
    """Yield an explanation in words."""
    yield f"table {table}, id {told.id} at {told.version}: shard {told.shard}, ordinal {told.ordinal}"
    yield f"stored by  {told.written_by}"
    yield f"segment    {told.segment}, row {told.rank}"
    yield f"changed    by the record at offset {told.offset} of its shard's log, generation {told.generation}"
    if told.log_range is not None:
        yield f"log range  [{told.log_range[0]}, {told.log_range[1]}), which {told.written_by} took in"
    else:
        yield f"log range  not known: {told.written_by} was removed"
