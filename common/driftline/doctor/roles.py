"""What each role needs to be allowed to do: on Kafka's topics, and in Redis.

Invariant: these are the rights that docs/how-to/kafka-security.md and redis-security.md
give to the roles; tests hold both to each other.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import StrEnum

from driftline import topics


class Role(StrEnum):
    """For whom the doctor looks."""

    SERVICE = "service"
    TRAINER = "trainer"
    READER = "reader"
    INGEST = "ingest"
    OPERATOR = "operator"
    AUDITOR = "auditor"


READ, WRITE, CREATE = "Read", "Write", "Create"

_LOOKING_UP = frozenset({"hmget", "hgetall", "hlen", "select"})
_AUDITING = _LOOKING_UP | {"hscan", "multi", "exec", "info", "memory|usage"}
_SERVING = _AUDITING | {
    *("hget", "hset", "hdel", "del", "unlink", "rename", "expire", "persist"),
    *("watch", "unwatch", "config|get"),
}
REDIS_COMMANDS: Mapping[Role, frozenset[str]] = {
    Role.SERVICE: _SERVING,
    Role.TRAINER: _LOOKING_UP,
    Role.READER: _LOOKING_UP,
    Role.INGEST: frozenset(),
    Role.OPERATOR: _LOOKING_UP,
    Role.AUDITOR: _AUDITING,
}
"""Commands by role; whoever needs none does not talk to Redis."""

DISPENSABLE: Mapping[str, str] = {
    "config|get": "INFO is asked instead",
    "unwatch": "nothing uses it yet",
    "info": "memory is not shown",
}
"""Commands whose lack is borne: only a warning."""

IN_CLUSTER = "cluster|slots"
"""What every role needs of a Redis Cluster besides."""


def kafka_rights(role: Role, group: str, tables: Sequence[str]) -> Mapping[str, frozenset[str]]:
    """Return the operations that `role` needs per topic of a group with these tables."""
    match role:
        case Role.SERVICE:
            return dict.fromkeys(expected_topics(group, tables), frozenset({READ, WRITE, CREATE}))
        case Role.TRAINER:
            return {topics.gradients(table): frozenset({WRITE}) for table in tables}
        case Role.READER:
            return {topics.updates(table): frozenset({READ}) for table in tables}
        case Role.INGEST:
            return {topics.ingest(group): frozenset({WRITE})}
        case Role.OPERATOR:
            return {topics.ops(group): frozenset({READ, WRITE})}
        case Role.AUDITOR:
            return {topics.gradients(table): frozenset({READ}) for table in tables}


def expected_topics(group: str, tables: Sequence[str]) -> tuple[str, ...]:
    """Return all topics of a group, the group's own first."""
    own = (topics.ops(group), topics.refused_ops(group), topics.ingest(group), topics.refused_ingest(group))
    return own + tuple(
        topic(table) for table in tables for topic in (topics.gradients, topics.updates, topics.dead_letters)
    )


def consumer_group(group: str) -> str:
    """Return the consumer group of the aggregators of `group`."""
    return f"driftline.{group}.aggregator"
