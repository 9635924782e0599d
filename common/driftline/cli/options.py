"""Flags that several commands share, and the settings they lead to.

Invariant: a flag wins over the environment, that over driftline.toml, that over
the default; one function decides it for every command.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from driftline.config import Settings, load_settings
from driftline.errors import InputError

LogUrl = Annotated[str | None, typer.Option("--log-url", help="local://DIR or kafka://host:port,…")]
RedisUrl = Annotated[str | None, typer.Option("--redis-url", help="redis://…; default: the local stack's.")]
Group = Annotated[str | None, typer.Option("--group", help="Group of tables.")]
DataDir = Annotated[Path | None, typer.Option("--data-dir", help="Directory of the local stack.")]
ConfigFile = Annotated[Path | None, typer.Option("--config", help="Settings file instead of driftline.toml.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]

NEGATIVE_NUMBERS: dict[str, object] = {"ignore_unknown_options": True}
"""Context settings of commands with numbers as arguments: -1 is one, to be refused as such, no option."""


def settings_of(
    log_url: str | None = None,
    redis_url: str | None = None,
    group: str | None = None,
    data_dir: Path | None = None,
    config: Path | None = None,
    **more: object,
) -> Settings:
    """Return the settings in force. Raises ConfigError naming a wrong key or value and its place."""
    flags: dict[str, object] = {
        "log_url": log_url,
        "redis_url": redis_url,
        "group": group,
        "data_dir": data_dir,
        "config": config,
        **more,
    }
    return load_settings(flags, cwd=Path.cwd(), environ=os.environ).settings


def row_id(text: str) -> int:
    """Return the id in `text`. Raises InputError."""
    if not text.isascii() or not text.isdigit() or int(text) >= 2**64:
        raise InputError(f"id {text!r} is not a whole number from 0 to 2^64 - 1")
    return int(text)
