"""`driftline export` and `driftline import`: tables to and from files of other programs.

Invariant: neither needs the signing key, for rows are pushed without one.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from driftline.cli.options import AsJson, on_rows, on_versions
from driftline.cli.tables_command import reader as keyless
from driftline.cli.version_options import Ref, TableOption, print_json, progress, reading, table_of
from driftline.config import Settings

Format = Annotated[
    str | None, typer.Option("--format", help="parquet, npz, safetensors or lance; default: by the suffix.")
]


@on_versions
def export(
    settings: Settings,
    ref: Ref,
    path: Annotated[Path, typer.Argument(metavar="FILE", help="To be made; must not exist.")],
    format: Format = None,
    table: TableOption = None,
    as_json: AsJson = False,
) -> None:
    """Write a table of a version to a file: columns id, vector, state (where there is one) and lsn."""
    from driftline.exchange import export_version, format_of
    from driftline.versions import TableReader, resolve

    kind = format_of(path, format)
    repository = reading(settings)
    found = resolve(repository, ref)
    reader = TableReader(repository.cache, found.manifest, table_of(found, table))
    with progress(as_json) as bars:
        task = bars.add_task("rows", total=reader.table.rows)
        count = export_version(reader, path, kind, lambda rows: bars.update(task, completed=rows))
    version = found.manifest.version
    if as_json:
        told = {"version": version, "table": reader.name, "file": str(path), "format": kind, "rows": count}
        print_json(told)
    else:
        typer.echo(f"{count:,} rows of {reader.name}@{version} in {path}")


@on_rows
def import_(
    settings: Settings,
    path: Annotated[Path, typer.Argument(metavar="FILE", help="With the columns id and vector.")],
    table: Annotated[str, typer.Argument(metavar="TABLE", help="An existing table.")],
    format: Format = None,
    without_state: Annotated[
        bool, typer.Option("--without-state", help="Let optimizer states start anew, whatever the file has.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Upsert the rows of a file into a table, through the log; to be run again where it was broken off.

    Memory stays bounded, however long the file is. Rows that the table has and the file has not stay.
    """
    from driftline.exchange import import_table, open_table

    file = open_table(path, format)
    with keyless(settings) as connected, progress(as_json) as bars:
        task = bars.add_task("rows", total=file.rows)
        count = import_table(
            connected.table(table),
            file,
            with_state=not without_state,
            told=lambda rows: bars.update(task, completed=rows),
        )
    if as_json:
        print_json({"table": table, "file": str(path), "format": file.format, "rows": count})
    else:
        typer.echo(f"{count:,} rows of {path} are in the log of {table}")
