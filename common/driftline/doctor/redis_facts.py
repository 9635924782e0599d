"""Collects what the doctor wants to know of the Redis servers.

Invariant: nothing is changed. Commands that write are queued in a transaction that is
never executed: Redis looks at the rights when a command is queued.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import cast

from driftline import clock
from driftline.doctor.roles import IN_CLUSTER, REDIS_COMMANDS, Role
from driftline.rows import resp
from driftline.rows.address import without_login
from driftline.rows.connection import Connection, Reply
from driftline.rows.layout import ShardKeys
from driftline.rows.memory import info
from driftline.rows.resp import Bytes
from driftline.rows.servers import Servers

_KEYS = ShardKeys.of("doctor", 0)  # a table of this name is not touched either: nothing is executed
_K = _KEYS.position
_PROBES: Mapping[str, tuple[bytes, ...]] = {
    "hget": (b"HGET", _K, b"next"),
    "hmget": (b"HMGET", _K, b"next"),
    "hgetall": (b"HGETALL", _K),
    "hlen": (b"HLEN", _K),
    "hscan": (b"HSCAN", _K, b"0"),
    "info": (b"INFO", b"server"),
    "config|get": (b"CONFIG", b"GET", b"maxmemory"),
    "memory|usage": (b"MEMORY", b"USAGE", _K),
    "watch": (b"WATCH", _K),
    "unwatch": (b"UNWATCH",),
    IN_CLUSTER: (b"CLUSTER", b"SLOTS"),
    "multi": (b"MULTI",),
    "exec": (b"EXEC",),  # of the empty transaction that `multi` began
}
_QUEUED: Mapping[str, tuple[bytes, ...]] = {
    "hset": (b"HSET", _K, b"next", b"0"),
    "hdel": (b"HDEL", _K, b"next"),
    "del": (b"DEL", _K),
    "unlink": (b"UNLINK", _K),
    "rename": (b"RENAME", _K, _KEYS.values),
    "expire": (b"EXPIRE", _K, b"1"),
    "persist": (b"PERSIST", _K),
}
_SECTIONS = (b"server", b"memory", b"persistence", b"replication")
_SETTINGS = (b"maxmemory*", b"append*", b"save")
_TIMES = 3  # of which the quickest answer counts: it says most about the clock
SLOTS = 16384


@dataclass(frozen=True, slots=True)
class Process:
    """One Redis process; empty where this user may not ask."""

    server: str  # its name in redis_url
    address: str  # without credentials
    told: Mapping[str, str] = field(default_factory=dict)  # fields of INFO
    settings: Mapping[str, str] = field(default_factory=dict)  # CONFIG GET
    denied: frozenset[str] = frozenset()  # commands that the role needs and the ACL refuses
    ahead: float | None = None  # seconds that its clock is ahead of ours; None: not told


@dataclass(frozen=True, slots=True)
class Machine:
    """A server as redis_url names it: one process, or a cluster of several."""

    name: str
    processes: tuple[Process, ...]
    slots_covered: int | None = None  # of a cluster


async def collect(servers: Servers, name: str, role: Role, now: clock.Clock) -> Machine:
    """Return what server `name` tells. Raises StoreUnavailableError, ConfigError."""
    processes = []
    for endpoint in await servers.endpoints(name):
        connection = await servers.open(endpoint)
        try:
            processes.append(await _process(connection, name, endpoint, role, servers.is_cluster, now))
        finally:
            await connection.close()  # drops what was queued
    covered = await _covered(servers, name) if servers.is_cluster else None
    return Machine(name, tuple(processes), covered)


async def _process(
    connection: Connection, name: str, endpoint: str, role: Role, cluster: bool, now: clock.Clock
) -> Process:
    told: dict[str, str] = {}
    for section in _SECTIONS:
        (reply,) = await _ask(connection, (b"INFO", section))
        told |= info(reply) if isinstance(reply, bytes) else {}
    settings: dict[str, str] = {}
    for pattern in _SETTINGS:
        (reply,) = await _ask(connection, (b"CONFIG", b"GET", pattern))
        if isinstance(reply, list):
            flat = [item.decode() for item in cast("list[bytes]", reply)]
            settings |= dict(zip(flat[::2], flat[1::2], strict=True))
    ahead = await _ahead(connection, now)
    needed = REDIS_COMMANDS[role] | ({IN_CLUSTER} if cluster else set())
    denied = await _denied(connection, needed)
    return Process(name, without_login(endpoint), told, settings, denied, ahead)


async def _ahead(connection: Connection, now: clock.Clock) -> float | None:
    """Return by how much the clock of Redis is ahead of ours, as the quickest of some answers shows."""
    answers: list[tuple[float, float]] = []
    for _ in range(_TIMES):
        begun = now()
        time, server = await _ask(connection, (b"TIME",), (b"INFO", b"server"))
        ended = now()
        theirs = _time_of(time, server)
        if theirs is None:
            return None
        answers.append((ended - begun, theirs - (begun + ended) / 2))
    return min(answers)[1]


def _time_of(time: Reply, server: Reply) -> float | None:
    if isinstance(time, list):
        seconds, micros = cast("list[bytes]", time)
        return int(seconds) + int(micros) / 1e6
    if isinstance(server, bytes) and (micros_text := info(server).get("server_time_usec")):
        return int(micros_text) / 1e6
    return None


async def _denied(connection: Connection, needed: frozenset[str] | set[str]) -> frozenset[str]:
    denied: set[str] = set()
    for name, words in _PROBES.items():
        if name in needed and await _is_denied(connection, words):
            denied.add(name)
    queued = [name for name in _QUEUED if name in needed]
    if not queued:
        return frozenset(denied)
    # without MULTI they would be carried out; one that EXEC may not end is still open
    (begun,) = await _ask(connection, (b"MULTI",))
    if isinstance(begun, Exception) and "nested" not in str(begun):
        return frozenset({*denied, "multi"})
    denied |= {name for name in queued if await _is_denied(connection, _QUEUED[name])}
    return frozenset(denied)


async def _is_denied(connection: Connection, words: tuple[bytes, ...]) -> bool:
    (reply,) = await _ask(connection, words)
    # other errors (MOVED, no transaction begun, no cluster) come after the rights were found in order
    return isinstance(reply, Exception) and ("NOPERM" in str(reply) or "permission" in str(reply))


async def _ask(connection: Connection, *commands: tuple[bytes, ...]) -> list[Reply]:
    packed: Sequence[Bytes] = [resp.command(*words) for words in commands]
    return await connection.exchange(packed, len(commands))


async def _covered(servers: Servers, name: str) -> int:
    """Return how many slots of the cluster have a master."""
    replies = await servers.ask(name, b"CLUSTER", b"SLOTS")
    slots = next((reply for reply in replies if isinstance(reply, list)), [])
    ranges = cast("list[list[int]]", slots)
    return sum(last - first + 1 for first, last, *_ in ranges)
