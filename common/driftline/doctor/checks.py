"""The list of checks, and the one way to run them.

Invariant: checks only read (in the object store they race for scratch keys), and know nothing of
each other; what one cannot look at is a finding of its own, and the others go on. A new part of a
deployment is a new entry in CHECKS.
"""

from __future__ import annotations

import asyncio
import contextlib
import sys
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass

from driftline import clock, topics
from driftline.config import Loaded, Settings, kafka_security
from driftline.doctor import (
    clocks,
    kafka_facts,
    kafka_verdicts,
    key,
    local_log,
    objects,
    redis_facts,
    redis_verdicts,
    settings,
    tables,
    versions,
)
from driftline.doctor.findings import Finding, Report, ok, unchecked, warn
from driftline.doctor.roles import REDIS_COMMANDS, Role, consumer_group, expected_topics, kafka_rights
from driftline.errors import ConfigError, DriftlineError, InputError, RetryError
from driftline.log import KafkaAddress, Log, open_log, parse_address
from driftline.log.local.layout import holds_log
from driftline.rows.servers import Servers
from driftline.stack.run_file import redis_url
from driftline.versions import group_url, open_store


@dataclass(frozen=True, slots=True)
class Patient:
    """What is looked at: a deployment as these settings see it, for somebody of this role."""

    loaded: Loaded
    role: Role
    tables: tuple[str, ...] = ()  # besides those that show themselves
    now: clock.Clock = clock.system

    @property
    def settings(self) -> Settings:
        return self.loaded.settings


@dataclass(frozen=True, slots=True)
class Check:
    """A part of a deployment, and how it is looked at."""

    name: str
    run: Callable[[Patient], Awaitable[Sequence[Finding]]]


async def examine(patient: Patient, checks: Sequence[Check] | None = None) -> Report:
    """Return what all checks find; one that cannot go on says so."""
    findings: list[Finding] = []
    for check in CHECKS if checks is None else checks:
        try:
            findings += await check.run(patient)
        except RetryError as error:
            findings.append(unchecked(check.name, "reachable", str(error), "start it, or correct its URL"))
        except ConfigError as error:
            findings.append(unchecked(check.name, "reachable", str(error), "correct the settings"))
        except DriftlineError as error:
            findings.append(unchecked(check.name, "state", str(error), "see docs/how-to/operate.md"))
    return Report(tuple(findings))


async def check_versions(patient: Patient) -> Sequence[Finding]:
    return list(versions.judge(sys.version_info[:2], versions.installed()))


async def check_settings(patient: Patient) -> Sequence[Finding]:
    return list(settings.judge(patient.loaded, settings.mode_of(patient.loaded.file)))


async def check_key(patient: Patient) -> Sequence[Finding]:
    return list(key.judge(key.look(patient.settings), patient.role))


async def check_data_dir(patient: Patient) -> Sequence[Finding]:
    directory = local_log.look(patient.settings.data_dir, local_log.read_mounts())
    return list(local_log.judge_data_dir(directory))


async def check_log(patient: Patient) -> Sequence[Finding]:
    """Look at the local log's directory, or at the cluster and its topics."""
    address = parse_address(patient.settings.log_url, kafka_security(patient.settings))
    if isinstance(address, KafkaAddress):
        return await _check_kafka(patient, address)
    directory = local_log.look(address.root, local_log.read_mounts())
    found = list(local_log.judge_log(directory))
    if any(each.unchecked for each in found):
        return found
    return [*found, await _log_clock(patient)]


async def check_redis(patient: Patient) -> Sequence[Finding]:
    """Look at every Redis server."""
    if not REDIS_COMMANDS[patient.role]:
        return []
    servers = Servers.at(redis_url(patient.settings))
    found: list[Finding] = []
    with contextlib.suppress(RetryError):  # each server is asked below, and says why
        await servers.learn()
    for name in servers.names:
        try:
            machine = await redis_facts.collect(servers, name, patient.role, patient.now)
        except (RetryError, ConfigError) as error:
            found.append(
                unchecked(f"redis {name}", "reachable", str(error), "start it, or correct redis_url")
            )
            continue
        found += redis_verdicts.judge(machine, patient.role)
        found += [clocks.judge_redis(each.server, each.ahead) for each in machine.processes]
    return found


async def check_tables(patient: Patient) -> Sequence[Finding]:
    """Look whether this release can serve the tables that Redis knows."""
    if not REDIS_COMMANDS[patient.role]:
        return []
    try:
        return list(tables.judge(await _tables(patient, await _names(patient))))
    except (RetryError, ConfigError):
        return []  # the checks of log and Redis say why


async def check_store(patient: Patient) -> Sequence[Finding]:
    """Look at the object store of the versions, which only services write to."""
    if patient.role is not Role.SERVICE:
        return []
    given = patient.settings
    url = group_url(given.store_url, given.group, given.data_dir)
    directory = objects.missing_directory(url)
    if directory is not None:
        return [ok(objects.AREA, "directory", f"{directory} is not there yet: made with the first version")]
    facts = await asyncio.to_thread(lambda: objects.collect(open_store(url), patient.now))
    return list(objects.judge(facts, given.group))


CHECKS: tuple[Check, ...] = (
    Check("versions", check_versions),
    Check("settings", check_settings),
    Check("key", check_key),
    Check("data_dir", check_data_dir),
    Check("log", check_log),
    Check("redis", check_redis),
    Check("tables", check_tables),
    Check("store", check_store),
)


async def _check_kafka(patient: Patient, address: KafkaAddress) -> Sequence[Finding]:
    names = await kafka_facts.visible_topics(address)
    found: list[Finding] = []
    try:
        known = await _tables(patient, [*kafka_verdicts.tables_among(names), *patient.tables])
        shards = {table.name: table.shards for table in known}
    except (RetryError, ConfigError):  # the check of Redis says why
        shards = {}
    group = kafka_verdicts.Group(patient.settings.group, shards)
    named = list(dict.fromkeys([*shards, *patient.tables]))
    if not named and patient.role in (Role.TRAINER, Role.READER, Role.AUDITOR):
        found.append(
            warn(
                "kafka",
                "rights",
                f"no table is known, so none of role {patient.role} was looked at",
                "name tables with --table",
            )
        )
    wanted = (
        expected_topics(group.name, named)
        if patient.role is Role.SERVICE
        else tuple(kafka_rights(patient.role, group.name, named))
    )
    member = consumer_group(group.name) if patient.role is Role.SERVICE else None
    cluster = await kafka_facts.collect(address, wanted, member)
    return [
        *kafka_verdicts.judge(address, cluster, group, patient.role, named),
        *found,
        await _log_clock(patient),
    ]


async def _names(patient: Patient) -> Sequence[str]:
    address = parse_address(patient.settings.log_url, kafka_security(patient.settings))
    if isinstance(address, KafkaAddress):
        visible: Iterable[str] = await kafka_facts.visible_topics(address)
    elif holds_log(address.root):
        async with open_log(patient.settings.log_url) as log:
            visible = await log.topics()
    else:
        visible = ()
    return [*kafka_verdicts.tables_among(visible), *patient.tables]


async def _tables(patient: Patient, names: Sequence[str]) -> list[tables.Table]:
    found = await tables.collect(Servers.at(redis_url(patient.settings)), list(dict.fromkeys(names)))
    return [table for table in found if table.group == patient.settings.group]


async def _log_clock(patient: Patient) -> Finding:
    newest: int | None = None
    async with open_log(patient.settings.log_url, kafka_security(patient.settings)) as log:
        for topic in await _readable(patient, log):
            try:
                stamp = await _newest(log, topic)
            except (InputError, ConfigError):
                continue  # not for this user
            newest = max(filter(None, (newest, stamp)), default=None)
    return clocks.judge_log(None if newest is None else newest / 1000 - patient.now())


async def _readable(patient: Patient, log: Log) -> Sequence[str]:
    there = await log.topics()
    own = expected_topics(patient.settings.group, kafka_verdicts.tables_among(there))
    wanted = [topics.ops(patient.settings.group), *own[4:]]
    return [name for name in wanted if name in there][:_LOOKED_AT]


_LOOKED_AT = 10  # topics whose newest record is read


async def _newest(log: Log, topic: str) -> int | None:
    """Return the log time of the last record of the first partition, in ms; None: it is empty."""
    bounds = await log.bounds(topic, 0)
    if bounds.begin == bounds.end:
        return None
    reader = log.reader(topic, 0, bounds.end - 1)
    try:
        records = await reader.read(max_bytes=1, wait=1.0)
    finally:
        await reader.close()
    return records[-1].timestamp if records else None
