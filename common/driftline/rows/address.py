"""What a Redis URL names: one server, several, or a cluster.

    redis://user:password@host:6379/0
    a=redis://host1:6379/0,b=rediss://host2:6379/0          several; without a name: host:port
    redis+cluster://user:password@host1:7000,host2:7000     a Redis Cluster, by some of its nodes

Invariant: pure; and nothing that is raised or printed from here holds a password,
also where a URL is malformed.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import urlsplit, urlunsplit

import redis.connection

from driftline.errors import ConfigError

HIDDEN = "***"
CLUSTER = "cluster"
"""Name of the one server that a cluster is: it places shards itself, by slots."""

_NAME = re.compile(r"[A-Za-z0-9:\[][A-Za-z0-9._:\[\]-]{0,63}")
_NEXT = re.compile(r",(?=(?:[A-Za-z0-9._:\[\]-]+=)?(?:rediss?|unix)://)")
_NAMED = re.compile(r"(?:([^=:/?@]*)=)?((?:rediss?|unix)://.*)", re.DOTALL)
_SECRET_QUERY = re.compile(r"([?&][^=&#]*(?:password|secret|token)[^=&#]*=)[^&#]*", re.IGNORECASE)
_EXPECTED = (
    "expected redis://[user:password@]host:port/database, rediss://…, unix:///path, several of them as "
    "name=URL,name=URL, or redis+cluster://host:port,host:port"
)


@dataclass(frozen=True, slots=True)
class Address:
    """Where rows are held: named servers, or the seed nodes of one cluster."""

    servers: Mapping[str, str]  # name -> URL, in order of names
    cluster: tuple[str, ...] = ()  # URLs of nodes; then `servers` has the one name CLUSTER


def parse(text: str) -> Address:
    """Return what `text` names. Raises ConfigError that does not repeat passwords."""
    scheme, _, rest = text.partition("://")
    if scheme in ("redis+cluster", "rediss+cluster"):
        return _cluster(scheme.removesuffix("+cluster"), rest)
    servers: dict[str, str] = {}
    for part in _NEXT.split(text):
        match = _NAMED.fullmatch(part)
        if match is None:
            raise ConfigError(_EXPECTED)
        url = match[2]
        name = match[1] if match[1] is not None else _default_name(url)
        check_server_name(name)
        _check(url)
        if name in servers:
            raise ConfigError(
                f"two servers are named {name!r}: give them names, as in a=redis://…,b=redis://…"
            )
        servers[name] = url
    return Address(dict(sorted(servers.items())))


def check_server_name(name: str) -> str:
    """Return `name`. Raises ConfigError unless it can name a server."""
    if not _NAME.fullmatch(name) or name == CLUSTER:
        raise ConfigError(f"server name {name!r}: up to 64 letters, digits, and . _ - : and not {CLUSTER!r}")
    return name


def redact(text: str) -> str:
    """Return a Redis URL, or a list of them, with passwords replaced by ***, also where it is malformed.

    Examples
    --------
    >>> redact("rediss://ann:s3@cret@host:6379/0?ssl_password=x")
    'rediss://ann:***@host:6379/0?ssl_password=***'
    >>> redact("a=redis://:x@h1,b=redis://ann:y@h2")
    'a=redis://:***@h1,b=redis://ann:***@h2'
    """
    return ",".join(_redact_one(part) for part in _NEXT.split(text))


def at_node(url: str, host: str, port: int) -> str:
    """Return `url` with another host and port: a node of the same cluster, by the same credentials."""
    parts = urlsplit(url)
    login, at, _ = parts.netloc.rpartition("@")
    place = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    return urlunsplit((parts.scheme, f"{login}{at}{place}", parts.path, parts.query, ""))


def without_login(url: str) -> str:
    """Return `url` without user, password and options: what may be written where others read it."""
    parts = urlsplit(url)
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))


def with_login_of(url: str, model: str) -> str:
    """Return `url` with user, password and options of `model`."""
    parts, given = urlsplit(url), urlsplit(model)
    login, at, _ = given.netloc.rpartition("@")
    return urlunsplit((parts.scheme, f"{login}{at}{parts.netloc}", parts.path, given.query, ""))


def _redact_one(text: str) -> str:
    # up to the last @: a password may hold an unescaped @ or /
    head, at, tail = text.rpartition("@")
    if at:
        scheme, mark, login = head.partition("://") if "://" in head else ("", "", head)
        user, colon, _ = login.partition(":")
        head = f"{scheme}{mark}{user if colon else ''}{colon}{HIDDEN}"
    return _SECRET_QUERY.sub(rf"\g<1>{HIDDEN}", head + at + tail)


def _cluster(scheme: str, rest: str) -> Address:
    login, at, places = rest.rpartition("@")
    end = min((places.index(mark) for mark in "/?" if mark in places), default=len(places))
    tail = places[end:]
    if tail.startswith("/") and tail[1:].partition("?")[0] not in ("", "0"):
        raise ConfigError("a Redis Cluster has database 0 only: leave the number out of the URL")
    nodes = tuple(f"{scheme}://{login}{at}{place}{tail}" for place in places[:end].split(","))
    for node in nodes:
        _check(node)
    return Address({CLUSTER: nodes[0]}, nodes)


def _check(url: str) -> None:
    try:
        parts = redis.connection.parse_url(url)  # type: ignore[no-untyped-call]
    except ValueError:
        raise ConfigError(_EXPECTED) from None  # its text may hold a part of the password
    host = str(parts.get("host") or "")
    if (not host and not parts.get("path")) or set(host) & set(",=/"):
        raise ConfigError(_EXPECTED)


def _default_name(url: str) -> str:
    try:
        parts = urlsplit(url)
        if parts.scheme == "unix":
            return parts.path.rsplit("/", 1)[-1]
        host = parts.hostname or ""
        return f"[{host}]:{parts.port or 6379}" if ":" in host else f"{host}:{parts.port or 6379}"
    except ValueError:
        raise ConfigError(_EXPECTED) from None
