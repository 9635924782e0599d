"""`driftline deploy` and `undeploy`: versions to be read beside the live tables."""

from __future__ import annotations

from typing import Annotated

import typer

from driftline.cli.options import AsJson, on_all
from driftline.cli.tables_command import client
from driftline.cli.version_options import Ref, print_json, progress
from driftline.config import Settings

Timeout = Annotated[float, typer.Option(min=0.001, help="Seconds to wait.")]


@on_all
def deploy(
    settings: Settings,
    ref: Ref,
    timeout: Timeout = 600.0,
    as_json: AsJson = False,
) -> None:
    """Serve a version, read-only, beside the live tables: `table.get(ids, version=…)` reads it."""
    with client(settings) as connected, progress(as_json) as bars:
        bars.add_task(f"deploying {ref}", total=None)
        version = connected.deploy(ref, timeout=timeout)
    if as_json:
        print_json({"version": version})
        return
    typer.echo(f"{version} can be read: table.get(ids, version={version!r})")


@on_all
def undeploy(
    settings: Settings,
    ref: Ref,
    as_json: AsJson = False,
) -> None:
    """Serve a version no longer; its place in Redis is given back."""
    with client(settings) as connected:
        version = connected.undeploy(ref)
    if as_json:
        print_json({"version": version, "removed": True})
        return
    typer.echo(f"{version} is no longer served")
