"""`driftline deploy` and `undeploy`: versions to be read beside the live tables."""

from __future__ import annotations

from typing import Annotated

import typer

from driftline.cli.options import AsJson, ConfigFile, DataDir, Group, LogUrl, RedisUrl, settings_of
from driftline.cli.tables_command import client
from driftline.cli.version_options import Ref, StoreUrl, print_json, progress

Timeout = Annotated[float, typer.Option(min=0.001, help="Seconds to wait.")]


def deploy(
    ref: Ref,
    timeout: Timeout = 600.0,
    as_json: AsJson = False,
    store_url: StoreUrl = None,
    log_url: LogUrl = None,
    redis_url: RedisUrl = None,
    group: Group = None,
    data_dir: DataDir = None,
    config: ConfigFile = None,
) -> None:
    """Serve a version, read-only, beside the live tables: `table.get(ids, version=…)` reads it."""
    settings = settings_of(log_url, redis_url, group, data_dir, config, store_url=store_url)
    with client(settings) as connected, progress(as_json) as bars:
        bars.add_task(f"deploying {ref}", total=None)
        version = connected.deploy(ref, timeout=timeout)
    if as_json:
        print_json({"version": version})
        return
    typer.echo(f"{version} can be read: table.get(ids, version={version!r})")


def undeploy(
    ref: Ref,
    as_json: AsJson = False,
    store_url: StoreUrl = None,
    log_url: LogUrl = None,
    redis_url: RedisUrl = None,
    group: Group = None,
    data_dir: DataDir = None,
    config: ConfigFile = None,
) -> None:
    """Serve a version no longer; its place in Redis is given back."""
    settings = settings_of(log_url, redis_url, group, data_dir, config, store_url=store_url)
    with client(settings) as connected:
        version = connected.undeploy(ref)
    if as_json:
        print_json({"version": version, "removed": True})
        return
    typer.echo(f"{version} is no longer served")
