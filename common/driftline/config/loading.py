"""Finds the value of every setting, and remembers where it came from.

Invariant: flag > environment > file > default, setting by setting; a key that no
setting has, or a value that breaks its rule, is a ConfigError that names key,
value and place, and all of them at once. The value of an unknown key is never
repeated: it may be a misspelt secret.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from enum import StrEnum
from pathlib import Path

from pydantic import ValidationError
from pydantic_settings import EnvSettingsSource

from driftline.config.kafka import check_kafka
from driftline.config.settings import ENV_PREFIX, Settings, shown
from driftline.errors import ConfigError

FILE_NAME = "driftline.toml"
CONFIG_FLAG = "config"
CONFIG_VARIABLE = "DRIFTLINE_CONFIG"
OTHER_VARIABLES: Mapping[str, str] = {
    CONFIG_VARIABLE: "path of the settings file, instead of driftline.toml in the working directory",
    "DRIFTLINE_TOOLS": "where `make tools` put the servers that tests run against",
    "DRIFTLINE_TESTS_*": "which tests run (tests and make only)",
}
"""Variables with our prefix that are no settings; a trailing * stands for any ending."""

# Kubernetes sets these in every pod for each Service whose name starts with "driftline".
_SERVICE_LINK = re.compile(r".*_SERVICE_(HOST|PORT(_.+)?)|SERVICE_(HOST|PORT(_.+)?)")
_DOCKER_LINK = re.compile(r"(tcp|udp|sctp)://")
_ASSIGNED = re.compile(
    r"([A-Za-z0-9_-]+)\s*=\s*[^\"'\[{\s].*"
)  # a value that begins as no text, list or table
_LINK_PART = re.compile(r"(.*_)?PORT_\d+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?")


class SourceKind(StrEnum):
    """Where a value can come from, the strongest first."""

    FLAG = "flag"
    ENVIRONMENT = "environment"
    FILE = "file"
    DEFAULT = "default"


@dataclass(frozen=True, slots=True)
class Source:
    """Where the value of one setting came from."""

    kind: SourceKind
    place: str  # "--redis-url", "DRIFTLINE_REDIS_URL", "driftline.toml line 3", ""

    def __str__(self) -> str:
        named = self.kind in (SourceKind.FLAG, SourceKind.ENVIRONMENT)
        return f"{self.kind} {self.place}" if named else self.place or str(self.kind)


@dataclass(frozen=True, slots=True)
class Loaded:
    """Valid settings, the source of each, and the file that was read, if any."""

    settings: Settings
    sources: Mapping[str, Source]
    file: Path | None


@dataclass(frozen=True, slots=True)
class _Found:
    value: object
    source: Source


class _Environment(EnvSettingsSource):
    """Values of the variables handed in, instead of those of this process."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        super().__init__(Settings)
        self.env_vars = {name.lower(): value for name, value in environ.items() if value}


def flag_of(name: str) -> str:
    """Return the command line flag of a setting: redis_url -> --redis-url."""
    return "--" + name.replace("_", "-")


def variable_of(name: str) -> str:
    """Return the environment variable of a setting: redis_url -> DRIFTLINE_REDIS_URL."""
    return ENV_PREFIX + name.upper()


def load_settings(flags: Mapping[str, object], *, cwd: Path, environ: Mapping[str, str]) -> Loaded:
    """Return the settings in force, each with its source.

    Parameters
    ----------
    flags: by setting name; None means not given. `config` is the path of the settings file.
    cwd: where driftline.toml is looked for, and what relative paths of it start from.
    environ: the environment; an empty variable counts as not set.

    Raises ConfigError naming every unknown key, every wrong value, and their places.
    """
    problems: list[str] = []
    file = settings_file(flags, cwd=cwd, environ=environ)
    given = {name: value for name, value in flags.items() if name != CONFIG_FLAG and value is not None}
    found = {name: _Found(None, Source(SourceKind.DEFAULT, "")) for name in Settings.model_fields}
    # the weakest first, so that the stronger overwrite
    found |= _from_file(file, cwd, problems) if file is not None else {}
    found |= _from_environment(environ, problems)
    found |= _from_flags(given, problems)
    chosen = {name: each.value for name, each in found.items() if each.source.kind is not SourceKind.DEFAULT}
    settings: Settings | None = None
    try:
        settings = Settings.model_validate(chosen)
    except ValidationError as error:
        problems += _explain(error, found)
    else:
        try:
            check_kafka(settings)
        except ConfigError as error:
            problems.append(str(error))
    if settings is None or problems:
        # outside the handler: the validation error holds the values, and tracebacks would show it
        raise ConfigError("\n".join(problems))
    return Loaded(settings, {name: each.source for name, each in found.items()}, file)


def settings_file(flags: Mapping[str, object], *, cwd: Path, environ: Mapping[str, str]) -> Path | None:
    """Return the settings file to read, None when there is none.

    Raises ConfigError when one was named and does not exist.
    """
    for place, value in (
        (flag_of(CONFIG_FLAG), flags.get(CONFIG_FLAG)),
        (CONFIG_VARIABLE, environ.get(CONFIG_VARIABLE)),
    ):
        if value:
            path = cwd / str(value)
            if not path.is_file():
                raise ConfigError(
                    f"settings file {str(path)!r} ({place}) does not exist: name another, or drop it"
                )
            return path
    return path if (path := cwd / FILE_NAME).is_file() else None


def _from_flags(flags: Mapping[str, object], problems: list[str]) -> dict[str, _Found]:
    known, unknown = _split(flags)
    problems += [_unknown("flag", flag_of(name), flag_of(_guess(name))) for name in unknown]
    return {name: _Found(flags[name], Source(SourceKind.FLAG, flag_of(name))) for name in known}


def _from_environment(environ: Mapping[str, str], problems: list[str]) -> dict[str, _Found]:
    variables = {variable_of(name): name for name in Settings.model_fields}
    for name, value in environ.items():
        ours = name.upper().startswith(ENV_PREFIX) and name not in variables
        if ours and not _is_other(name) and not _is_service_link(name, value):
            problems.append(
                _unknown("environment variable", name, variable_of(_guess(name[len(ENV_PREFIX) :])))
            )
    values = _Environment({name: value for name, value in environ.items() if name in variables})()
    return {
        name: _Found(value, Source(SourceKind.ENVIRONMENT, variable_of(name)))
        for name, value in values.items()
    }


def _from_file(path: Path, cwd: Path, problems: list[str]) -> dict[str, _Found]:
    label = str(path.relative_to(cwd)) if path.is_relative_to(cwd) else str(path)
    try:
        text = path.read_text("utf-8")
        table = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        problems.append(f"settings file {label} cannot be read: {error}{_unquoted(text)}")
        return {}
    except (OSError, UnicodeDecodeError) as error:
        problems.append(f"settings file {label} cannot be read: {error}")
        return {}
    known, unknown = _split(table)
    problems += [_unknown("key", name, _guess(name), _place(label, text, name)) for name in unknown]
    return {name: _Found(table[name], Source(SourceKind.FILE, _place(label, text, name))) for name in known}


def _unquoted(text: str) -> str:
    """Return a hint when a value that must stand in quotes does not, without repeating it."""
    for number, line in enumerate(text.splitlines(), 1):
        match = _ASSIGNED.fullmatch(line.strip())
        if match is not None and not _is_toml(line):
            return f'; line {number}: text stands in quotes: {match[1]} = "…"'
    return ""


def _split(given: Mapping[str, object]) -> tuple[list[str], list[str]]:
    known = [name for name in given if name in Settings.model_fields]
    return known, [name for name in given if name not in Settings.model_fields]


def _guess(name: str) -> str:
    near = get_close_matches(name.lower().replace("-", "_"), Settings.model_fields, n=1)
    return near[0] if near else ""


def _unknown(what: str, name: str, guess: str, place: str = "") -> str:
    bare = guess in ("", flag_of(""), variable_of(""))
    advice = "`driftline config show` lists the settings" if bare else f"did you mean {guess}?"
    return f"unknown {what} {name}{f' ({place})' if place else ''}: {advice}"


def _is_other(name: str) -> bool:
    return any(
        name == other or (other[-1] == "*" and name.startswith(other[:-1])) for other in OTHER_VARIABLES
    )


def _is_service_link(name: str, value: str) -> bool:
    rest = name[len(ENV_PREFIX) :]
    if _SERVICE_LINK.fullmatch(rest) or _LINK_PART.fullmatch(rest):
        return True
    return (rest == "PORT" or rest.endswith("_PORT")) and _DOCKER_LINK.match(value) is not None


def _place(label: str, text: str, name: str) -> str:
    line = line_of(text, name)
    return f"{label} line {line}" if line else label


def line_of(text: str, name: str) -> int | None:
    """Return the line (from 1) on which a valid TOML text sets the top-level key or table `name`.

    None when it is spelt in a way that cannot be found (escapes in the key).
    """
    quoted = rf"""(?:{re.escape(name)}|"{re.escape(name)}"|'{re.escape(name)}')"""
    sets = re.compile(rf"\s*(?:{quoted}\s*[.=]|\[\[?\s*{quoted}\s*[.\]])")
    lines = text.split("\n")
    for index, line in enumerate(lines):
        # what is before must stand alone, or the line is the inside of a multi-line string
        if sets.match(line) and _is_toml("\n".join(lines[:index])):
            return index + 1
    return None


def _is_toml(text: str) -> bool:
    try:
        tomllib.loads(text)
    except tomllib.TOMLDecodeError:
        return False
    return True


def _explain(error: ValidationError, found: Mapping[str, _Found]) -> Iterator[str]:
    for each in error.errors(include_url=False):
        name = str(each["loc"][0])
        value, source = found[name].value, found[name].source
        cause = each.get("ctx", {}).get("error")
        reason = str(cause) if cause is not None else each["msg"]
        yield f"{name} = {shown(name, value)!r} ({source}): {reason}"
