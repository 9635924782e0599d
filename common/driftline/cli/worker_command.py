"""`driftline worker NAME`: run one service in the foreground."""

from __future__ import annotations

import os
import sys

import typer

from driftline.cli.options import ConfigFile, DataDir, Group, LogUrl, RedisUrl, settings_of

app = typer.Typer(help="Run one service in the foreground.", no_args_is_help=True)


@app.callback()
def worker() -> None:
    """Run one service in the foreground; it ends in order on SIGINT or SIGTERM."""


@app.command()
def aggregator(
    log_url: LogUrl = None,
    redis_url: RedisUrl = None,
    group: Group = None,
    data_dir: DataDir = None,
    config: ConfigFile = None,
) -> None:
    """Apply gradients to rows: consumes the gradients topics, keeps Redis fresh, publishes updates."""
    settings_of(log_url, redis_url, group, data_dir, config)  # complain here, not in the child
    flags = {
        "DRIFTLINE_LOG_URL": log_url,
        "DRIFTLINE_REDIS_URL": redis_url,
        "DRIFTLINE_GROUP": group,
        "DRIFTLINE_DATA_DIR": data_dir and str(data_dir),
        "DRIFTLINE_CONFIG": config and str(config),
    }
    environment = {**os.environ, **{name: value for name, value in flags.items() if value}}
    # the library does not import services: the process becomes one
    os.execve(sys.executable, [sys.executable, "-m", "driftline_services.aggregator"], environment)  # noqa: S606
