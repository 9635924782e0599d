"""`driftline config`: show the settings in force and where each came from, make a key.

Invariant: no secret is printed, except the new key that was asked for.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated

import typer

from driftline.config import Loaded, load_settings, shown
from driftline.config import new_key as make_key
from driftline.config.loading import CONFIG_FLAG, FILE_NAME, variable_of
from driftline.config.settings import SECRETS
from driftline.errors import ConfigError

app = typer.Typer(help="Show the settings in force, and make signing keys.", no_args_is_help=True)

ConfigPath = Annotated[
    Path | None,
    typer.Option("--config", help=f"Settings file, instead of {FILE_NAME} here.", show_default=False),
]


@app.command(
    context_settings={"allow_extra_args": True, "ignore_unknown_options": True},
    epilog="Any setting can be given as a flag, such as --redis-url redis://host:6379/0.",
)
def show(
    context: typer.Context,
    config: ConfigPath = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Print every setting, its value and where the value came from."""
    loaded = _load(config, read_flags(context.args))
    typer.echo(_as_json(loaded) if as_json else _as_text(loaded))


@app.command("new-key")
def new_key() -> None:
    """Print a fresh signing key for a deployment on Kafka."""
    typer.echo(make_key())


@app.command()
def path(config: ConfigPath = None) -> None:
    """Print the settings file in force; say on standard error when there is none."""
    file = _load(config, {}).file
    if file is None:
        typer.echo(
            f"no {FILE_NAME} in {Path.cwd()}, and none named by --config or DRIFTLINE_CONFIG", err=True
        )
        raise typer.Exit(1)
    typer.echo(str(file))


def read_flags(words: Sequence[str]) -> dict[str, object]:
    """Return settings given as `--name value` or `--name=value`, by setting name.

    Raises ConfigError for a word that is no flag, a flag without value, and for secrets:
    every user of the machine can read the command line of a process.
    """
    flags: dict[str, object] = {}
    rest = iter(words)
    for word in rest:
        name, equals, value = word.partition("=")
        if not name.startswith("--") or name == "--":
            raise ConfigError(f"{word!r} is not a flag: settings are given as --name value")
        setting = name.removeprefix("--").replace("-", "_")
        if setting in SECRETS:
            raise ConfigError(
                f"{name} would show the secret in the process list: set {variable_of(setting)} or {name}-file"
            )
        if not equals:
            following = next(rest, None)
            if following is None:
                raise ConfigError(f"flag {name} has no value")
            value = following
        flags[setting] = value
    return flags


def _load(config: Path | None, flags: Mapping[str, object]) -> Loaded:
    return load_settings({**flags, CONFIG_FLAG: config}, cwd=Path.cwd(), environ=os.environ)


def _values(loaded: Loaded) -> dict[str, object]:
    return {name: shown(name, getattr(loaded.settings, name)) for name in loaded.sources}


def _as_text(loaded: Loaded) -> str:
    rows = [
        (name, "-" if value is None else str(value), str(loaded.sources[name]))
        for name, value in _values(loaded).items()
    ]
    widths = [max(len(row[column]) for row in rows) for column in range(2)]
    return "\n".join(f"{name:{widths[0]}}  {value:{widths[1]}}  {source}" for name, value, source in rows)


def _as_json(loaded: Loaded) -> str:
    settings = {
        name: {
            "value": value,
            "source": loaded.sources[name].kind,
            "place": loaded.sources[name].place or None,
        }
        for name, value in _values(loaded).items()
    }
    return json.dumps({"file": str(loaded.file) if loaded.file else None, "settings": settings}, indent=2)
