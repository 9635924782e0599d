"""Collects what the doctor wants to know of a Kafka cluster.

Invariant: nothing is written or created, and what this user may not see is told as such,
never guessed.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from aiokafka import errors as kafka
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from aiokafka.protocol.group import HeartbeatRequest

from driftline.doctor.kafka_wire import Features, Rights, operations, supported_level
from driftline.errors import LogUnavailableError
from driftline.log.address import KafkaAddress
from driftline.log.kafka.client import CALL_TIMEOUT_S, arguments, connect, ended, translated


@dataclass(frozen=True, slots=True)
class Topic:
    """A topic as the cluster describes it to this user."""

    name: str
    missing: bool = False
    hidden: bool = False  # the ACLs do not even let this user see whether it exists
    partitions: int = 0
    leaderless: tuple[int, ...] = ()
    replicas: int = 0  # of the partition that has the fewest
    in_sync: int = 0  # likewise
    allowed: frozenset[str] | None = None  # operations; None: not told
    settings: Mapping[str, str] | None = None  # None: may not be read


@dataclass(frozen=True, slots=True)
class Cluster:
    """A cluster as this user sees it."""

    brokers: int
    level: int | None  # newest metadata.version of the brokers' software
    topics: Mapping[str, Topic]
    may_join: bool | None = None  # whether this user may be in the consumer group; None: not asked


async def visible_topics(address: KafkaAddress) -> frozenset[str]:
    """Return the names of all topics that this user may see. Raises ConfigError, LogUnavailableError."""
    admin = await _admin(address)
    try:
        with translated(address, "listing topics"):
            async with asyncio.timeout(CALL_TIMEOUT_S):
                answer = await admin._send_request(Rights(None))
        return frozenset(each[1] for each in answer.topics if each[0] == 0 and not each[2])
    finally:
        await admin.close()
        await ended(address)


async def collect(address: KafkaAddress, names: Sequence[str], consumer_group: str | None) -> Cluster:
    """Return what the cluster tells of itself and of topics `names`.

    Raises ConfigError when this user is not let in, LogUnavailableError when nobody answers.
    """
    admin = await _admin(address)
    try:
        with translated(address, "asking for topics, rights and settings"):
            async with asyncio.timeout(CALL_TIMEOUT_S):
                return await _collect(admin, names, consumer_group)
    finally:
        await admin.close()
        await ended(address)


async def _admin(address: KafkaAddress) -> AIOKafkaAdminClient:
    admin = AIOKafkaAdminClient(**arguments(address))
    try:
        await connect(admin, address)
    except BaseException:
        await admin.close()
        raise
    return admin


async def _collect(admin: AIOKafkaAdminClient, names: Sequence[str], group: str | None) -> Cluster:
    answer = await admin._send_request(Rights(names))
    topics = {topic.name: topic for topic in map(_topic, answer.topics)}
    present = [topic.name for topic in topics.values() if not topic.missing and not topic.hidden]
    settings = await _settings(admin, present)
    with_settings = {name: replace(topic, settings=settings.get(name)) for name, topic in topics.items()}
    return Cluster(
        brokers=len(answer.brokers),
        level=await _level(admin),
        topics=with_settings,
        may_join=await _may_join(admin, group) if group is not None else None,
    )


def _topic(
    told: tuple[int, str, bool, Iterable[tuple[int, int, int, int, list[int], list[int], list[int]]], int],
) -> Topic:
    code, name, _, partitions, bits = told
    error = kafka.for_code(code)
    if error is kafka.TopicAuthorizationFailedError:
        return Topic(name, hidden=True)
    if error is kafka.UnknownTopicOrPartitionError:
        return Topic(name, missing=True)
    if error is not kafka.NoError:
        raise LogUnavailableError(f"topic {name}: {error.__name__}")
    parts = list(partitions)
    return Topic(
        name,
        partitions=len(parts),
        leaderless=tuple(sorted(part[1] for part in parts if part[2] < 0)),
        replicas=min((len(part[4]) for part in parts), default=0),
        in_sync=min((len(part[5]) for part in parts), default=0),
        allowed=operations(bits),
    )


async def _settings(admin: AIOKafkaAdminClient, names: Sequence[str]) -> Mapping[str, Mapping[str, str]]:
    """Return the settings of the topics whose settings this user may read."""
    if not names:
        return {}
    asked = [ConfigResource(ConfigResourceType.TOPIC, name) for name in names]
    found: dict[str, Mapping[str, str]] = {}
    for answer in await admin.describe_configs(asked):
        for code, _, _, name, entries in answer.resources:
            if code == 0:
                found[name] = {entry[0]: entry[1] for entry in entries if entry[1] is not None}
    return found


async def _level(admin: AIOKafkaAdminClient) -> int | None:
    try:
        answer = await admin._send_request(Features())
    except (NotImplementedError, kafka.IncompatibleBrokerVersion):
        return None  # before KIP-584
    return supported_level(answer.tags)


async def _may_join(admin: AIOKafkaAdminClient, group: str) -> bool:
    """Return whether this user may read in a consumer group.

    Asked by the heartbeat of a member that does not exist: rights are looked at first, and nothing
    comes of it, neither a member nor the topic of committed offsets.
    """
    answer = await admin._send_request(HeartbeatRequest(group, -1, ""))
    return kafka.for_code(answer.error_code) is not kafka.GroupAuthorizationFailedError
