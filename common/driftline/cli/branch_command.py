"""`driftline branch`: lines of versions."""

from __future__ import annotations

from typing import Annotated

import typer

from driftline.cli.options import AsJson, ConfigFile, DataDir, Group
from driftline.cli.version_options import REFERENCE, StoreUrl, print_json, reading, store_settings
from driftline.versions.wording import columns

app = typer.Typer(help="List, make and remove branches.", no_args_is_help=True)

Name = Annotated[str, typer.Argument(help="Letters, digits, '_', '-', '.'.")]


@app.command("ls")
def list_branches(
    as_json: AsJson = False,
    store_url: StoreUrl = None,
    group: Group = None,
    data_dir: DataDir = None,
    config: ConfigFile = None,
) -> None:
    """List branches with their heads."""
    from driftline.versions import branches

    found = branches(reading(store_settings(store_url, group, data_dir, config)))
    if as_json:
        print_json(found)
        return
    for line in columns([(name, head or "no version yet") for name, head in found.items()]):
        typer.echo(line)


@app.command()
def create(
    name: Name,
    ref: Annotated[str, typer.Argument(metavar="REF", help=f"Where it begins: {REFERENCE}.")] = "latest",
    as_json: AsJson = False,
    store_url: StoreUrl = None,
    group: Group = None,
    data_dir: DataDir = None,
    config: ConfigFile = None,
) -> None:
    """Make a branch that begins at a version. `driftline checkout --branch` trains on in it."""
    from driftline.versions import create_branch, resolve

    repository = reading(store_settings(store_url, group, data_dir, config))
    version = resolve(repository, ref).manifest.version
    create_branch(repository, name, version)
    if as_json:
        print_json({"branch": name, "version": version})
        return
    typer.echo(f"branch {name} begins at {version}")


@app.command("rm")
def remove(
    name: Name,
    as_json: AsJson = False,
    store_url: StoreUrl = None,
    group: Group = None,
    data_dir: DataDir = None,
    config: ConfigFile = None,
) -> None:
    """Remove a branch. Its versions stay until `driftline gc --older-than` removes them."""
    from driftline.versions import branches, remove_branch

    repository = reading(store_settings(store_url, group, data_dir, config))
    head = branches(repository).get(name)
    remove_branch(repository, name)
    if as_json:
        print_json({"branch": name, "version": head, "removed": True})
        return
    typer.echo(f"branch {name} removed; it was at {head}")
