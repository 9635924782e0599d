"""What kinds of value settings have: sizes, ports, times, and texts with a rule of their own.

Invariant: pure; a rule raises ValueError with what was expected and never repeats a secret.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, BeforeValidator, Field, SecretStr

from driftline import topics
from driftline.errors import ConfigError
from driftline.frames.headers import Keyring
from driftline.log.address import parse_address
from driftline.log.limits import check_name
from driftline.rows.address import parse as parse_redis

STORE_SCHEMES = ("file", "s3", "gs", "az")

_UNITS = {
    "": 1,
    "b": 1,
    "kb": 1000,
    "mb": 1000**2,
    "gb": 1000**3,
    "kib": 1 << 10,
    "mib": 1 << 20,
    "gib": 1 << 30,
}
_TIME_OF_DAY = re.compile(r"([01]\d|2[0-3]):[0-5]\d")
_SCENARIO = re.compile(r"[A-Z0-9]{1,8}")
_GATE = re.compile(
    r"drift|figure:[^:\s]+:(lower|higher):\d+(\.\d+)?%?|call:[A-Za-z_]\w*(\.[A-Za-z_]\w*)+|https?://\S+"
)
_LIMIT = re.compile(r"[a-z_]+=-?\d+(\.\d+)?")
_SIZE = re.compile(r"(\d+)\s*([A-Za-z]*)")


def parse_size(value: object) -> object:
    """Return the bytes that a text such as '256MiB' stands for; anything but text is passed on.

    Units: B, kB, MB, GB (powers of 1000), KiB, MiB, GiB (powers of 1024), in any case.
    Raises ValueError for other text.

    Examples
    --------
    >>> parse_size("256MiB"), parse_size("1 kB"), parse_size(42)
    (268435456, 1000, 42)
    """
    if not isinstance(value, str):
        return value
    match = _SIZE.fullmatch(value.strip())
    if match is None or match[2].lower() not in _UNITS:
        raise ValueError("expected bytes, or a number with a unit such as 512KiB, 256MiB or 2GB")
    return int(match[1]) * _UNITS[match[2].lower()]


def _no_truth_value(value: object) -> object:
    # pydantic takes true for 1
    if isinstance(value, bool):
        raise ValueError("expected a number, not true or false")
    return value


def _log_url(value: str) -> str:
    if "@" in value:
        raise ValueError("a log URL takes no user name or password: use kafka_username and kafka_password")
    try:
        parse_address(value)
    except ConfigError as error:
        raise ValueError(str(error)) from None
    return value


def _redis_url(value: str) -> str:
    try:
        parse_redis(value)
    except ConfigError as error:  # does not repeat passwords
        raise ValueError(str(error)) from None
    return value


def _store_url(value: str) -> str:
    parts = urlsplit(value)
    if "@" in value:
        raise ValueError("a store URL takes no user name or password: the store's own variables do")
    if parts.scheme not in STORE_SCHEMES or (parts.scheme == "file") == bool(parts.netloc):
        raise ValueError("expected file:///DIR, s3://BUCKET/…, gs://BUCKET/… or az://CONTAINER/…")
    return value


def _time_of_day(value: str) -> str | None:
    if value == "off":
        return None
    if not _TIME_OF_DAY.fullmatch(value):
        raise ValueError("expected a time of day such as 03:30, or off")
    return value


def _scenario(value: str) -> str:
    if not _SCENARIO.fullmatch(value):
        raise ValueError("expected 1 to 8 capitals or digits")
    return value


def _gates(value: str) -> str:
    wrong = [each for each in value.split() if not _GATE.fullmatch(each)]
    if wrong:
        raise ValueError(
            f"{wrong[0]!r}: expected drift, figure:NAME:lower:TOLERANCE, figure:NAME:higher:TOLERANCE "
            "(or TOLERANCE%), call:module.function, http://… or https://…"
        )
    return value


def _limits(value: str) -> str:
    wrong = [each for each in value.split() if not _LIMIT.fullmatch(each)]
    if wrong:
        raise ValueError(f"{wrong[0]!r}: expected MEASURE=LIMIT, as in jaccard=0.3")
    return value


def _group(value: str) -> str:
    check_name("group", value)
    check_name("topic", topics.refused_ingest(value))
    if value == topics.DEFAULT_INGEST:
        raise ValueError(f"{topics.ingest(value)} is the ingest topic of the group 'default'")
    return value


def _instance(value: str) -> str:
    return check_name("instance", value)


def _keys(value: SecretStr) -> SecretStr:
    try:
        Keyring.parse(value.get_secret_value())
    except ConfigError as error:  # does not repeat the secret
        raise ValueError(str(error)) from None
    return value


def _lower(value: object) -> object:
    return value.lower() if isinstance(value, str) else value


Bytes = Annotated[int, Field(ge=1), BeforeValidator(parse_size), BeforeValidator(_no_truth_value)]
Port = Annotated[int, Field(ge=0, le=65535), BeforeValidator(_no_truth_value)]
Seconds = Annotated[float, Field(gt=0, allow_inf_nan=False), BeforeValidator(_no_truth_value)]
HomePath = Annotated[Path, AfterValidator(Path.expanduser)]
"""A path whose ~ is expanded, as `log_url` does: no shell does it for what stands in a file."""
LogUrl = Annotated[str, AfterValidator(_log_url)]
RedisUrl = Annotated[str, AfterValidator(_redis_url)]
StoreUrl = Annotated[str, AfterValidator(_store_url)]
TimeOfDay = Annotated[str, AfterValidator(_time_of_day)]
Scenario = Annotated[str, AfterValidator(_scenario)]
Gates = Annotated[str, AfterValidator(_gates)]
Limits = Annotated[str, AfterValidator(_limits)]
GroupName = Annotated[str, AfterValidator(_group)]
InstanceName = Annotated[str, AfterValidator(_instance)]
Keys = Annotated[SecretStr, AfterValidator(_keys)]
LogLevel = Annotated[Literal["debug", "info", "warning", "error"], BeforeValidator(_lower)]
