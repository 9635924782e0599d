"""`driftline table`: make tables and list them."""

from __future__ import annotations

from typing import Annotated

import orjson
import typer

from driftline.cli.options import AsJson, on_rows
from driftline.client import Client, Options
from driftline.config import Settings, kafka_security, signing_key
from driftline.log import check_exists
from driftline.shard.optimizers import KINDS
from driftline.shard.spec import Init, TableSpec
from driftline.stack.run_file import redis_url as find_redis_url

app = typer.Typer(help="Make tables and list them.", no_args_is_help=True)


@app.command()
@on_rows
def create(
    settings: Settings,
    name: str,
    dim: Annotated[int, typer.Option(help="Dimension of the rows.")],
    shards: Annotated[int, typer.Option(help="Number of shards, fixed for the table's life.")] = 8,
    optimizer: Annotated[str, typer.Option(help=f"One of {', '.join(KINDS)}.")] = "rowwise_adagrad",
    lr: Annotated[float | None, typer.Option(help="Learning rate.")] = None,
    seed: Annotated[int, typer.Option(help="Seed of the initial rows.")] = 0,
    scale: Annotated[float, typer.Option(help="Initial rows are uniform in [-scale, scale).")] = 0.01,
) -> None:
    """Make a table, or change what may change of one; returns when every shard knows."""
    rule: dict[str, object] = {"kind": optimizer} | ({} if lr is None else {"lr": lr})
    spec = TableSpec(name, dim, settings.group, shards, rule, Init(seed, scale))
    with client(settings) as connected:
        connected.create_table(spec)
    typer.echo(f"table {name}: {shards} shards, {dim} dimensions, {optimizer}")


@app.command("ls")
@on_rows
def list_tables(
    settings: Settings,
    as_json: AsJson = False,
) -> None:
    """List the tables of the group."""
    with reader(settings) as connected:
        tables = connected.tables()
    if as_json:
        typer.echo(orjson.dumps([spec.to_json() for spec in tables.values()], option=orjson.OPT_INDENT_2))
        return
    for spec in tables.values():
        kind = spec.optimizer["kind"]
        typer.echo(f"{spec.name}\t{spec.shards} shards\t{spec.dim} dimensions\t{kind}")


def client(settings: Settings) -> Client:
    """Return a client for `settings` that may change tables. Raises ConfigError without a key."""
    return _client(settings, signing_key(settings))


def reader(settings: Settings) -> Client:
    """Return a client for `settings` that only reads: needs no key, and makes nothing.

    Raises ConfigError where a local log is looked for in a directory that holds none.
    """
    check_exists(settings.log_url)
    return _client(settings, None)


def _client(settings: Settings, key: str | None) -> Client:
    url, security = find_redis_url(settings), kafka_security(settings)
    return Client(
        Options(
            settings.log_url,
            url,
            settings.group,
            key,
            security=security,
            store_url=settings.store_url,
            data_dir=settings.data_dir,
            version_cache_dir=settings.version_cache_dir,
        )
    )
