"""Flags that several commands share, and the settings they lead to.

Invariant: a flag wins over the environment, that over driftline.toml, that over
the default; one function decides it for every command.
"""

from __future__ import annotations

import functools
import inspect
import os
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Concatenate, ParamSpec, TypeVar, get_type_hints

import typer

from driftline.config import Settings, load_settings
from driftline.errors import InputError

_Own = ParamSpec("_Own")
_Result = TypeVar("_Result")

StoreUrl = Annotated[
    str | None, typer.Option("--store-url", help="Object store of the versions; default: in data_dir.")
]
LogUrl = Annotated[str | None, typer.Option("--log-url", help="local://DIR or kafka://host:port,…")]
RedisUrl = Annotated[str | None, typer.Option("--redis-url", help="redis://…; default: the local stack's.")]
Group = Annotated[str | None, typer.Option("--group", help="Group of tables.")]
DataDir = Annotated[Path | None, typer.Option("--data-dir", help="Directory of the local stack.")]
ConfigFile = Annotated[Path | None, typer.Option("--config", help="Settings file instead of driftline.toml.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]

NEGATIVE_NUMBERS: dict[str, object] = {"ignore_unknown_options": True}
"""Context settings of commands with numbers as arguments: -1 is one, to be refused as such, no option."""


def settings_of(**flags: object) -> Settings:
    """Return the settings in force. Raises ConfigError naming a wrong key or value and its place."""
    return load_settings(flags, cwd=Path.cwd(), environ=os.environ).settings


_FLAGS = {
    "store_url": StoreUrl,
    "log_url": LogUrl,
    "redis_url": RedisUrl,
    "group": Group,
    "data_dir": DataDir,
    "config": ConfigFile,
}


def for_settings(
    *flags: str,
) -> Callable[[Callable[Concatenate[Settings, _Own], _Result]], Callable[..., _Result]]:
    """Give a command these flags behind its own, and as its first argument the settings they lead to."""
    added = [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=_FLAGS[name])
        for name in flags
    ]

    def decorate(command: Callable[Concatenate[Settings, _Own], _Result]) -> Callable[..., _Result]:
        @functools.wraps(command)
        def run(*own: _Own.args, **given: _Own.kwargs) -> _Result:
            found = settings_of(**{name: given.pop(name, None) for name in flags})
            return command(found, *own, **given)

        hints = get_type_hints(command, include_extras=True)
        _, *own = inspect.signature(command).parameters.values()
        parameters = [
            each.replace(kind=inspect.Parameter.KEYWORD_ONLY, annotation=hints[each.name]) for each in own
        ]
        signature = inspect.Signature([*parameters, *added])
        run.__signature__ = signature  # type: ignore[attr-defined]
        run.__annotations__ = {each.name: each.annotation for each in signature.parameters.values()}
        return run

    return decorate


on_versions = for_settings("store_url", "group", "data_dir", "config")
"""For commands that need the versions alone."""
on_log = for_settings("log_url", "group", "data_dir", "config")
"""For commands that need the log alone."""
on_rows = for_settings("log_url", "redis_url", "group", "data_dir", "config")
"""For commands that need log and Redis."""
on_all = for_settings(*_FLAGS)
"""For commands that need log, Redis and the versions."""


def row_id(text: str) -> int:
    """Return the id in `text`. Raises InputError."""
    if not text.isascii() or not text.isdigit() or int(text) >= 2**64:
        raise InputError(f"id {text!r} is not a whole number from 0 to 2^64 - 1")
    return int(text)
