"""Judges what a Kafka cluster told of itself and of the topics of a group.

Invariant: pure. A failure is what stops a part of driftline, or loses data that was
acknowledged; a warning is what leaves less to fall back on.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from driftline import topics
from driftline.doctor.findings import Finding, Severity, Trouble, fail, ok, together, warn
from driftline.doctor.kafka_facts import Cluster, Topic
from driftline.doctor.kafka_wire import release
from driftline.doctor.roles import Role, consumer_group, expected_topics, kafka_rights
from driftline.log.address import KafkaAddress
from driftline.log.kafka.topics import BATCH_FRAMING
from driftline.log.limits import MAX_BATCH_BYTES

AREA = "kafka"
OLDEST_LEVEL = 7  # metadata.version of Kafka 3.3: KRaft
LOOPBACK = ("127.", "localhost:", "[::1]")
NEEDED_BYTES = MAX_BATCH_BYTES + BATCH_FRAMING
_DAY_MS = 24 * 3600 * 1000
_FOR_EVER = "-1"
_GRANT = "give them with kafka-acls.sh, as docs/how-to/kafka-security.md shows"
_ALTER = "kafka-configs.sh --alter --entity-type topics --entity-name TOPIC --add-config"


@dataclass(frozen=True, slots=True)
class Group:
    """What is known of the group whose topics are judged."""

    name: str
    shards: Mapping[str, int]  # by table


def judge(
    address: KafkaAddress, cluster: Cluster, group: Group, role: Role, tables: Sequence[str]
) -> list[Finding]:
    """Return the findings on a cluster that answered; `tables` are those whose topics were asked for."""
    return [
        ok(AREA, "reachable", f"{address}, {cluster.brokers} broker{'s' * (cluster.brokers != 1)}"),
        _version(cluster.level),
        security(address),
        *_rights(address, cluster, group, role, tables),
        *_topics(cluster, group, role),
    ]


def _version(level: int | None) -> Finding:
    if level is None:
        return warn(AREA, "version", "not told: older than 3.3, or with ZooKeeper", "use Kafka 3.3 or later")
    found = f"{release(level)} (metadata.version {level})"
    if level < OLDEST_LEVEL:
        return warn(AREA, "version", found, "use Kafka 3.3 or later; tested is 4.3")
    return ok(AREA, "version", found)


def security(address: KafkaAddress) -> Finding:
    """Return the finding on how the cluster is connected to."""
    far = [server for server in address.servers if not server.startswith(LOOPBACK)]
    how = address.security
    if not far or (how.uses_tls and (how.uses_sasl or how.cert_file is not None)):
        return ok(AREA, "security", str(how))
    if not how.uses_tls:
        lack = "passwords can be read on the way" if how.uses_sasl else "neither encrypted nor authenticated"
        return warn(AREA, "security", f"{how}: {lack}", "set kafka_security_protocol = SASL_SSL")
    return warn(
        AREA,
        "security",
        f"{how}: encrypted, but this client proves no name",
        "set SASL_SSL with a login, or kafka_cert_file: without a name ACLs cannot tell clients apart",
    )


def _rights(
    address: KafkaAddress, cluster: Cluster, group: Group, role: Role, tables: Sequence[str]
) -> Iterator[Finding]:
    needed = kafka_rights(role, group.name, tables)
    who = address.security.username or "this user"
    lacking: list[tuple[str, Trouble]] = []
    for name, operations in needed.items():
        topic = cluster.topics.get(name)
        if topic is None or topic.missing or (topic.allowed is None and not topic.hidden):
            continue
        if lack := sorted(operations - (topic.allowed or frozenset())):
            told = f"{who}, role {role}, lacks {', '.join(lack)}"
            lacking.append((name, Trouble(Severity.FAIL, "rights on", told, _GRANT)))
    yield from together(AREA, lacking)
    if cluster.may_join is False:
        yield fail(
            AREA,
            "rights on the consumer group",
            f"{who}, role {role}, lacks Read on {consumer_group(group.name)}",
            _GRANT,
        )
    elif not lacking and needed:
        yield ok(AREA, "rights", f"all that role {role} needs")


def _topics(cluster: Cluster, group: Group, role: Role) -> Iterator[Finding]:
    own = expected_topics(group.name, [])
    if role is Role.SERVICE:
        absent = [name for name in own if cluster.topics[name].missing]
        if absent:
            yield warn(
                AREA, "topics", f"not there yet: {', '.join(absent)}", "the first aggregator makes them"
            )
    troubles: list[tuple[str, Trouble]] = []
    seen: list[Topic] = []
    for name, topic in cluster.topics.items():
        if topic.hidden:
            continue
        if topic.missing:
            if name not in own:
                troubles.append((name, _LOST))
            continue
        seen.append(topic)
        troubles += [(name, each) for each in judge_topic(topic, group)]
    yield from together(AREA, troubles)
    if seen and not troubles:
        yield ok(AREA, "topics", f"{len(seen)} of group {group.name}, all well")


_LOST = Trouble(
    Severity.FAIL,
    "presence",
    "missing: Redis knows the table, the cluster has no such topic",
    "is log_url right? if the topic was deleted, make it anew with as many partitions as the table has "
    "shards, then `driftline table relog`",
)


def judge_topic(topic: Topic, group: Group) -> Iterator[Trouble]:
    """Yield what is wrong with one topic that is there."""
    yield from _partitions(topic, group)
    if topic.settings is None:
        yield Trouble(
            Severity.WARN,
            "settings",
            "not shown to this user",
            "run the doctor as a user with DescribeConfigs, such as the service",
        )
        return
    yield from _replication(topic, topic.settings)
    yield from _keeping(topic.name, topic.settings, group)
    yield from _limits(topic.name, topic.settings, group)


def _partitions(topic: Topic, group: Group) -> Iterator[Trouble]:
    expected = _expected_partitions(topic.name, group)
    if expected is not None and topic.partitions != expected:
        yield Trouble(
            Severity.FAIL,
            "partitions",
            f"{topic.partitions}, not {expected}",
            "the count is fixed for a table's life: was the topic made by hand? Delete it if nobody needs "
            "it, or make the table under another name",
        )
    if topic.leaderless:
        yield Trouble(
            Severity.FAIL,
            "leaders",
            f"none for partitions {', '.join(map(str, topic.leaderless))}",
            "start the brokers that hold them",
        )


def _expected_partitions(name: str, group: Group) -> int | None:
    if name == topics.ingest(group.name):
        return None  # any number will do
    for table, shards in group.shards.items():
        if name in (topics.gradients(table), topics.updates(table), topics.dead_letters(table)):
            return shards
    return 1


def _replication(topic: Topic, settings: Mapping[str, str]) -> Iterator[Trouble]:
    least = int(settings.get("min.insync.replicas", "1"))
    if topic.replicas < least:
        yield Trouble(
            Severity.FAIL,
            "replicas",
            f"{topic.replicas}, below min.insync.replicas {least}: no write is taken",
            "add replicas (kafka-reassign-partitions.sh), or lower min.insync.replicas",
        )
    elif topic.in_sync < least:
        yield Trouble(
            Severity.FAIL,
            "replicas in sync",
            f"{topic.in_sync} of {topic.replicas}, below min.insync.replicas {least}: no write is taken",
            "start the brokers that are away",
        )
    elif topic.replicas == 1:
        yield Trouble(
            Severity.WARN,
            "replicas",
            "1: the loss of one broker loses the topic",
            "set default.replication.factor = 3 on the brokers before tables are made",
        )
    elif least == 1:
        yield Trouble(
            Severity.WARN,
            "min.insync.replicas",
            "1: acks=all may mean one copy",
            f"{_ALTER} min.insync.replicas=2",
        )
    if topic.replicas > 1 and settings.get("unclean.leader.election.enable") == "true":
        yield Trouble(
            Severity.FAIL,
            "unclean.leader.election.enable",
            "true: an election may drop acknowledged records",
            f"{_ALTER} unclean.leader.election.enable=false",
        )


def _keeping(name: str, settings: Mapping[str, str], group: Group) -> Iterator[Trouble]:
    if "compact" in settings.get("cleanup.policy", ""):
        yield Trouble(
            Severity.FAIL,
            "cleanup.policy",
            f"{settings['cleanup.policy']}: compaction removes records that count",
            f"{_ALTER} cleanup.policy=delete",
        )
    limits = {each: settings.get(each, _FOR_EVER) for each in ("retention.ms", "retention.bytes")}
    limited = ", ".join(f"{each} {value}" for each, value in limits.items() if value != _FOR_EVER)
    if not limited:
        return
    for_ever = f"{_ALTER} retention.ms=-1,retention.bytes=-1"
    if name == topics.ops(group.name):
        yield Trouble(
            Severity.FAIL,
            "retention",
            f"{limited}: the ops topic is where tables are born, and is read from its begin",
            for_ever,
        )
    elif _is_gradients(name):
        yield Trouble(
            Severity.WARN,
            "retention",
            f"{limited}: no audit and no rebuilding of Redis beyond it, and a shard whose next record was "
            "removed stops",
            for_ever,
        )
    elif name == topics.ingest(group.name) and _below_a_day(limits["retention.ms"]):
        yield Trouble(
            Severity.WARN,
            "retention",
            f"{limited}: messages are lost when the aggregators are away for longer",
            "keep them for at least the longest outage you mean to survive",
        )


def _below_a_day(milliseconds: str) -> bool:
    return milliseconds != _FOR_EVER and int(milliseconds) < _DAY_MS


def _limits(name: str, settings: Mapping[str, str], group: Group) -> Iterator[Trouble]:
    largest = int(settings.get("max.message.bytes", "0"))
    if largest < NEEDED_BYTES:
        ours = name != topics.ingest(group.name)
        yield Trouble(
            Severity.FAIL if ours else Severity.WARN,
            "max.message.bytes",
            f"{largest}: batches of up to {NEEDED_BYTES} bytes are sent" if ours else f"{largest}",
            f"{_ALTER} max.message.bytes={NEEDED_BYTES}",
        )
    if settings.get("message.timestamp.type") != "LogAppendTime":
        yield Trouble(
            Severity.FAIL if _is_gradients(name) else Severity.WARN,
            "message.timestamp.type",
            f"{settings.get('message.timestamp.type')}: log time would be the clocks of producers, and one "
            "that is ahead would have all known producers forgotten",
            f"{_ALTER} message.timestamp.type=LogAppendTime",
        )


def _is_gradients(name: str) -> bool:
    return name.endswith(topics.gradients(""))


def tables_among(names: Iterable[str]) -> list[str]:
    """Return the tables that have a topic among `names`; a group's own topics look like no table's."""
    suffixes = (topics.gradients(""), topics.updates(""))
    return sorted({name.removesuffix(end) for name in names for end in suffixes if name.endswith(end)})
