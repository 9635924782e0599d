"""Judges what the Redis servers told.

Invariant: pure. What would lose rows that were acknowledged fails; what the log makes
good again, or leaves little room, is a warning.
"""

from __future__ import annotations

from collections.abc import Iterator

from driftline.doctor.findings import Finding, fail, ok, unchecked, warn
from driftline.doctor.redis_facts import SLOTS, Machine, Process
from driftline.doctor.roles import DISPENSABLE, Role
from driftline.rows.memory import SAFE_POLICY, eviction_refused

OLDEST = (6, 2)
NEWEST_TESTED = (8, 2)
_NEARLY_FULL, _FULL = 0.8, 0.95
_OF_MACHINE = 0.7  # without maxmemory, of the machine's memory: a fork to save may double it for a while
_ROLES = "docs/how-to/redis-security.md has the users"


def judge(machine: Machine, role: Role) -> list[Finding]:
    """Return the findings on a server that answered."""
    findings = [each for process in machine.processes for each in _process(process, role)]
    if machine.slots_covered is not None:
        findings.append(_slots(f"redis {machine.name}", machine.slots_covered))
    return findings


def _slots(area: str, covered: int) -> Finding:
    if covered == SLOTS:
        return ok(area, "slots", "all have a master")
    return fail(
        area,
        "slots",
        f"{SLOTS - covered} of {SLOTS} have no master",
        "start the nodes that are away, or `redis-cli --cluster fix`",
    )


def _process(process: Process, role: Role) -> Iterator[Finding]:
    area = f"redis {process.server}"
    yield ok(area, "reachable", process.address)
    yield from _rights(area, process, role)
    if not process.told:
        yield warn(
            area,
            "settings, memory and version",
            f"not shown to a user of role {role}",
            "run the doctor as the service or the auditor too",
        )
        return
    yield _version(area, process.told.get("redis_version", ""))
    if process.told.get("loading", "0") != "0":
        yield unchecked(area, "state", "loading its data", "wait until it is done and look again")
        return
    if process.told.get("role") == "slave":
        yield fail(area, "role", "replica: it takes no writes", "name the master in redis_url")
    yield from _memory(area, process)
    yield from _persistence(area, process)


def _rights(area: str, process: Process, role: Role) -> Iterator[Finding]:
    lack = sorted(process.denied - DISPENSABLE.keys())
    if lack:
        rules = " ".join(f"+{name}" for name in lack)
        yield fail(
            area, "rights", f"role {role} lacks {', '.join(lack)}", f"ACL SETUSER … {rules} ~dl:*; {_ROLES}"
        )
    for name in sorted(process.denied & DISPENSABLE.keys()):
        yield warn(area, "rights", f"no {name}: {DISPENSABLE[name]}", f"ACL SETUSER … +{name}; {_ROLES}")
    if not process.denied:
        yield ok(area, "rights", f"all that role {role} needs")


def _version(area: str, version: str) -> Finding:
    try:
        major, minor = (int(part) for part in version.split(".")[:2])
    except ValueError:
        return warn(area, "version", version or "not told", "use Redis 7 or 8")
    if (major, minor) < OLDEST:
        return fail(area, "version", version, "use Redis 6.2 or later")
    if (major, minor) > NEWEST_TESTED:
        tested = ".".join(map(str, NEWEST_TESTED))
        return warn(area, "version", version, f"newer than tested ({tested}): watch the first days")
    return ok(area, "version", version)


def _memory(area: str, process: Process) -> Iterator[Finding]:
    told = process.told
    settings = process.settings
    policy = settings.get("maxmemory-policy", told.get("maxmemory_policy", SAFE_POLICY))
    limit = int(settings.get("maxmemory", told.get("maxmemory", "0")))
    used, machine = int(told.get("used_memory", "0")), int(told.get("total_system_memory", "0"))
    if eviction_refused(process.server, policy, limit) is not None:
        yield fail(
            area,
            "maxmemory-policy",
            f"{policy} with maxmemory {limit}: an evicted row is a row lost",
            "CONFIG SET maxmemory-policy noeviction, and in redis.conf",
        )
    elif policy != SAFE_POLICY:
        yield warn(
            area,
            "maxmemory-policy",
            f"{policy}: harmless without maxmemory, and evicts rows once one is set",
            "CONFIG SET maxmemory-policy noeviction, and in redis.conf",
        )
    else:
        yield ok(area, "maxmemory-policy", policy)
    yield _headroom(area, used, limit, machine)


def _headroom(area: str, used: int, limit: int, machine: int) -> Finding:
    if limit:
        found = f"{used / limit:.0%} of maxmemory ({_mib(used)} of {_mib(limit)}) in use"
        more = "raise maxmemory, or move shards: `driftline shards move`"
        if used >= _FULL * limit:
            return fail(area, "memory", f"{found}: commits wait when it is full", more)
        return ok(area, "memory", found) if used < _NEARLY_FULL * limit else warn(area, "memory", found, more)
    found = f"{_mib(used)} in use, no maxmemory"
    if machine and used > _OF_MACHINE * machine:
        return warn(
            area,
            "memory",
            f"{found}, of {_mib(machine)} that the machine has",
            "set maxmemory below what the machine has: without it the system may kill Redis",
        )
    return ok(area, "memory", found)


def _mib(size: int) -> str:
    return f"{size / 2**20:,.0f} MiB"


def _persistence(area: str, process: Process) -> Iterator[Finding]:
    told, settings = process.told, process.settings
    if told.get("aof_enabled", "0") == "0":
        yield fail(
            area,
            "appendonly",
            "no: a restart goes back to the last save, or to nothing",
            "CONFIG SET appendonly yes, and in redis.conf; what is lost is applied again only as far as "
            "the log reaches back",
        )
        return
    if told.get("aof_last_write_status", "ok") != "ok":
        yield fail(
            area,
            "append-only file",
            "the last write failed: writes are refused",
            "look at Redis' log; is the disk full?",
        )
    every = settings.get("appendfsync")
    if every == "no":
        yield warn(
            area,
            "appendfsync",
            "no: a power cut loses up to half a minute",
            "CONFIG SET appendfsync everysec; the aggregator applies what was lost again",
        )
    else:
        yield ok(area, "appendonly", f"yes, appendfsync {every or 'not shown to this user'}")
