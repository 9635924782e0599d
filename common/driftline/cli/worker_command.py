"""`driftline worker NAME`: run one service in the foreground."""

from __future__ import annotations

import os
import sys
from pathlib import Path

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
    _become("aggregator", log_url, redis_url, group, data_dir, config)


@app.command()
def versioner(
    log_url: LogUrl = None,
    redis_url: RedisUrl = None,
    group: Group = None,
    data_dir: DataDir = None,
    config: ConfigFile = None,
) -> None:
    """Cut versions: consumes the updates topics, keeps backups, commits versions to the object store."""
    _become("versioner", log_url, redis_url, group, data_dir, config)


@app.command()
def drift_monitor(
    log_url: LogUrl = None,
    redis_url: RedisUrl = None,
    group: Group = None,
    data_dir: DataDir = None,
    config: ConfigFile = None,
) -> None:
    """Judge training: consumes the updates topics, tells verdicts and alarms, undoes bad updates."""
    _become("drift_monitor", log_url, redis_url, group, data_dir, config)


def _become(
    service: str,
    log_url: str | None,
    redis_url: str | None,
    group: str | None,
    data_dir: Path | None,
    config: Path | None,
) -> None:
    settings_of(  # complain here, not in the child
        log_url=log_url, redis_url=redis_url, group=group, data_dir=data_dir, config=config
    )
    flags = {
        "DRIFTLINE_LOG_URL": log_url,
        "DRIFTLINE_REDIS_URL": redis_url,
        "DRIFTLINE_GROUP": group,
        "DRIFTLINE_DATA_DIR": data_dir and str(data_dir),
        "DRIFTLINE_CONFIG": config and str(config),
    }
    environment = {**os.environ, **{name: value for name, value in flags.items() if value}}
    # the library does not import services: the process becomes one
    os.execve(sys.executable, [sys.executable, "-m", f"driftline_services.{service}"], environment)  # noqa: S606
