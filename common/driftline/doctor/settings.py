"""Judges settings that are valid one by one, but lose data or contradict each other.

Invariant: pure; no value of a secret is told.
"""

from __future__ import annotations

import stat
from collections.abc import Iterator, Mapping
from pathlib import Path

from driftline.config import Loaded, Settings, SourceKind
from driftline.config.settings import SECRETS
from driftline.doctor.findings import Finding, fail, ok, warn
from driftline.errors import ConfigError
from driftline.log.address import LocalAddress, parse_address
from driftline.rows.address import parse as parse_redis
from driftline.shard.spec import Policy

AREA = "settings"
LONGEST_SESSION_S = 20.0
"""What a request to join the group is waited for: a longer session time-out is refused by the services."""
_HERE = ("127.0.0.1", "localhost", "[::1]", "unix://")


def judge(loaded: Loaded, file_mode: int | None) -> Iterator[Finding]:
    """Yield the findings on settings; `file_mode` is that of the settings file."""
    settings = loaded.settings
    found = [*_contradictions(settings), *_sizes(settings), *_secrets(loaded, file_mode)]
    yield from found
    if not found:
        yield ok(AREA, "consistent", str(loaded.file) if loaded.file is not None else "no settings file")


def mode_of(file: Path | None) -> int | None:
    """Return the permission bits of the settings file, None without one."""
    return stat.S_IMODE(file.stat().st_mode) if file is not None else None


def _contradictions(settings: Settings) -> Iterator[Finding]:
    local = isinstance(parse_address(settings.log_url), LocalAddress)
    url = settings.redis_url
    if local and url is not None and not any(here in url for here in _HERE):
        yield warn(
            AREA,
            "log_url",
            f"{settings.log_url} with a Redis on another machine",
            "a local log is for one machine: use kafka:// where others take part",
        )
    if not local and url is None:
        yield warn(
            AREA,
            "redis_url",
            "not set, with a log on Kafka",
            "set it: a local stack's Redis serves one machine",
        )
    if local and (idle := [name for name in _kafka_names() if _is_set(settings, name)]):
        yield warn(
            AREA, ", ".join(idle), f"set, and log_url is {settings.log_url}", "set kafka://, or drop them"
        )
    for strong, weak in (("key", "key_file"), ("kafka_password", "kafka_password_file")):
        if getattr(settings, strong) is not None and getattr(settings, weak) is not None:
            yield warn(AREA, f"{strong}, {weak}", f"both are set; {strong} wins", f"drop {strong}")
    if settings.session_timeout_s > LONGEST_SESSION_S:
        yield fail(
            AREA,
            "session_timeout_s",
            f"{settings.session_timeout_s:g}: a worker refuses more than {LONGEST_SESSION_S:g}",
            f"set at most {LONGEST_SESSION_S:g}",
        )
    yield from _redis(settings)


def _redis(settings: Settings) -> Iterator[Finding]:
    if settings.redis_url is None:
        return
    if "ssl_cert_reqs=none" in settings.redis_url:
        yield warn(
            AREA, "redis_url", "ssl_cert_reqs=none: anybody can pose as Redis", "set ssl_ca_certs=… instead"
        )
    try:
        servers = parse_redis(settings.redis_url)
    except ConfigError:  # valid when it was loaded
        return
    if settings.placement != "equal" and (servers.cluster or len(servers.servers) == 1):
        yield warn(
            AREA,
            "placement",
            f"{settings.placement} has no effect with {'a cluster' if servers.cluster else 'one server'}",
            "drop it",
        )


def _sizes(settings: Settings) -> Iterator[Finding]:
    frame = Policy().max_frame
    if settings.cache_bytes < settings.flush_bytes:
        yield warn(
            AREA,
            "cache_bytes",
            f"{settings.cache_bytes}, below flush_bytes {settings.flush_bytes}: changed rows alone fill it",
            "raise cache_bytes, to some times flush_bytes for each shard",
        )
    if settings.push_buffer_bytes < frame:
        yield warn(
            AREA,
            "push_buffer_bytes",
            f"{settings.push_buffer_bytes}, below one frame of {frame}: pushes wait for each other",
            f"raise it to several times {frame}",
        )


def _secrets(loaded: Loaded, file_mode: int | None) -> Iterator[Finding]:
    inside = [
        name
        for name, source in loaded.sources.items()
        if source.kind is SourceKind.FILE and _holds_secret(name, loaded.settings)
    ]
    if inside and file_mode is not None and file_mode & 0o077:
        yield warn(
            AREA,
            "permissions",
            f"{loaded.file} holds {', '.join(inside)} and has mode {file_mode:03o}",
            f"chmod 600 {loaded.file}",
        )


def _holds_secret(name: str, settings: Settings) -> bool:
    return name in SECRETS or (name == "redis_url" and "@" in (settings.redis_url or ""))


def _kafka_names() -> list[str]:
    return [name for name in Settings.model_fields if name.startswith("kafka_")]


def _is_set(settings: Settings, name: str) -> bool:
    values: Mapping[str, object] = {name: getattr(settings, name)}
    return values[name] not in (None, Settings.model_fields[name].default)
