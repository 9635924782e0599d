"""`driftline tag`: names for versions that are to be kept."""

from __future__ import annotations

from typing import Annotated

import typer

from driftline.cli.options import AsJson, on_versions
from driftline.cli.version_options import REFERENCE, print_json, reading
from driftline.config import Settings
from driftline.errors import VersionHeldError
from driftline.versions.wording import columns

app = typer.Typer(help="List, set and remove tags.", no_args_is_help=True)

Name = Annotated[str, typer.Argument(help="Letters, digits, '_', '-', '.'.")]


@app.command("ls")
@on_versions
def list_tags(
    settings: Settings,
    as_json: AsJson = False,
) -> None:
    """List tags with their versions."""
    from driftline.versions import tags

    found = tags(reading(settings))
    if as_json:
        print_json(found)
        return
    for line in columns(list(found.items())):
        typer.echo(line)


@app.command("set")
@on_versions
def point(
    settings: Settings,
    name: Name,
    ref: Annotated[str, typer.Argument(metavar="REF", help=f"{REFERENCE}.")] = "latest",
    move: Annotated[bool, typer.Option("--move", help="Also if the tag points elsewhere.")] = False,
    as_json: AsJson = False,
) -> None:
    """Point a tag to a version; the version is kept as long as it does."""
    from driftline.versions import resolve, set_tag, tags

    repository = reading(settings)
    version = resolve(repository, ref).manifest.version
    before = tags(repository).get(name)
    if before not in (None, version) and not move:
        raise VersionHeldError(f"tag {name} points to {before}: --move lets it point to {version}")
    set_tag(repository, name, version)
    if as_json:
        print_json({"tag": name, "version": version, "before": before})
        return
    typer.echo(
        f"tag {name} points to {version}"
        + (f", no longer to {before}" if before not in (None, version) else "")
    )


@app.command("rm")
@on_versions
def remove(
    settings: Settings,
    name: Name,
    as_json: AsJson = False,
) -> None:
    """Remove a tag."""
    from driftline.versions import remove_tag, tags

    repository = reading(settings)
    before = tags(repository).get(name)
    remove_tag(repository, name)
    if as_json:
        print_json({"tag": name, "version": before, "removed": True})
        return
    typer.echo(f"tag {name} removed; it pointed to {before}")
