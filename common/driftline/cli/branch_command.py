"""`driftline branch`: lines of versions."""

from __future__ import annotations

from typing import Annotated

import typer

from driftline.cli.options import AsJson, on_versions
from driftline.cli.version_options import REFERENCE, print_json, reading
from driftline.config import Settings
from driftline.versions.wording import columns

app = typer.Typer(help="List, make and remove branches.", no_args_is_help=True)

Name = Annotated[str, typer.Argument(help="Letters, digits, '_', '-', '.'.")]


@app.command("ls")
@on_versions
def list_branches(
    settings: Settings,
    as_json: AsJson = False,
) -> None:
    """List branches with their heads."""
    from driftline.versions import branches

    found = branches(reading(settings))
    if as_json:
        print_json(found)
        return
    for line in columns([(name, head or "no version yet") for name, head in found.items()]):
        typer.echo(line)


@app.command()
@on_versions
def create(
    settings: Settings,
    name: Name,
    ref: Annotated[str, typer.Argument(metavar="REF", help=f"Where it begins: {REFERENCE}.")] = "latest",
    as_json: AsJson = False,
) -> None:
    """Make a branch that begins at a version. `driftline checkout --branch` trains on in it."""
    from driftline.versions import create_branch, resolve

    repository = reading(settings)
    version = resolve(repository, ref).manifest.version
    create_branch(repository, name, version)
    if as_json:
        print_json({"branch": name, "version": version})
        return
    typer.echo(f"branch {name} begins at {version}")


@app.command("rm")
@on_versions
def remove(
    settings: Settings,
    name: Name,
    as_json: AsJson = False,
) -> None:
    """Remove a branch. Its versions stay until `driftline gc --older-than` removes them."""
    from driftline.versions import branches, remove_branch

    repository = reading(settings)
    head = branches(repository).get(name)
    remove_branch(repository, name)
    if as_json:
        print_json({"branch": name, "version": head, "removed": True})
        return
    typer.echo(f"branch {name} removed; it was at {head}")
