"""What the doctor says of Kafka and Redis as they describe themselves, without either."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import pytest

from driftline.doctor import kafka_verdicts, redis_verdicts
from driftline.doctor.findings import Finding
from driftline.doctor.kafka_facts import Cluster, Topic
from driftline.doctor.kafka_verdicts import Group
from driftline.doctor.redis_facts import SLOTS, Machine, Process
from driftline.doctor.roles import Role, consumer_group, expected_topics
from driftline.log import KafkaAddress, KafkaSecurity
from driftline.log.kafka.topics import TOPIC_SETTINGS
from driftline_services.aggregator.app import consumer_group as of_the_service

ALL = frozenset({"Read", "Write", "Create", "Describe"})
SAFE = {**TOPIC_SETTINGS, "min.insync.replicas": "2", "unclean.leader.election.enable": "false"}
HEALTHY = Topic("items.gradients", partitions=2, replicas=3, in_sync=3, allowed=ALL, settings=SAFE)
GROUP = Group("default", {"items": 2})
ADDRESS = KafkaAddress(("broker:9092",), KafkaSecurity("SASL_SSL", "PLAIN", "ann", "secret"))


def judged(**changes: object) -> dict[str, str]:
    troubles = kafka_verdicts.judge_topic(replace(HEALTHY, **changes), GROUP)  # type: ignore[arg-type]
    return {trouble.what: str(trouble.severity) for trouble in troubles}


def with_setting(name: str, value: str) -> Mapping[str, str]:
    return {**SAFE, name: value}


def test_a_topic_as_driftline_makes_it_on_three_brokers_is_fine() -> None:
    assert judged() == {}


@pytest.mark.parametrize(
    ("setting", "value", "what", "severity"),
    [
        ("cleanup.policy", "compact", "cleanup.policy", "fail"),
        ("cleanup.policy", "compact,delete", "cleanup.policy", "fail"),
        ("retention.ms", "604800000", "retention", "warn"),
        ("retention.bytes", "1000000", "retention", "warn"),
        ("max.message.bytes", "1048588", "max.message.bytes", "fail"),
        ("message.timestamp.type", "CreateTime", "message.timestamp.type", "fail"),
        ("min.insync.replicas", "1", "min.insync.replicas", "warn"),
        ("min.insync.replicas", "4", "replicas", "fail"),
        ("unclean.leader.election.enable", "true", "unclean.leader.election.enable", "fail"),
    ],
)
def test_a_setting_that_loses_data_is_found(setting: str, value: str, what: str, severity: str) -> None:
    assert judged(settings=with_setting(setting, value)) == {what: severity}


@pytest.mark.parametrize(
    ("changes", "what", "severity"),
    [
        ({"partitions": 3}, "partitions", "fail"),
        ({"leaderless": (1,)}, "leaders", "fail"),
        ({"in_sync": 1}, "replicas in sync", "fail"),
        ({"settings": None}, "settings", "warn"),
    ],
)
def test_a_topic_in_a_bad_state_is_found(changes: dict[str, object], what: str, severity: str) -> None:
    assert judged(**changes) == {what: severity}


def test_a_single_replica_is_a_warning() -> None:
    lone = {"replicas": 1, "in_sync": 1, "settings": with_setting("min.insync.replicas", "1")}
    assert judged(**lone) == {"replicas": "warn"}


def test_tables_are_forgotten_when_the_ops_topic_forgets() -> None:
    limited = with_setting("retention.ms", "604800000")
    assert judged(name="default.ops", partitions=1, settings=limited) == {"retention": "fail"}
    assert judged(name="items.updates", settings=limited) == {}
    assert judged(name="driftline.ingest", partitions=7, settings=limited) == {}
    assert judged(name="driftline.ingest", partitions=7, settings=with_setting("retention.ms", "60000")) == {
        "retention": "warn"
    }


def kafka(cluster: Cluster, role: Role = Role.SERVICE, address: KafkaAddress = ADDRESS) -> list[Finding]:
    return kafka_verdicts.judge(address, cluster, GROUP, role, ["items"])


def whole(**changes: object) -> Cluster:
    made = {
        name: replace(HEALTHY, name=name, partitions=2 if name.startswith("items") else 1)
        for name in expected_topics("default", ["items"])
    }
    return replace(Cluster(3, 25, made, may_join=True), **changes)  # type: ignore[arg-type]


def test_a_healthy_cluster_has_no_findings_but_good_ones() -> None:
    assert {each.severity for each in kafka(whole())} == {"ok"}


def test_rights_that_are_missing_are_named_with_their_topics() -> None:
    topics = dict(whole().topics)
    topics["items.gradients"] = replace(HEALTHY, allowed=frozenset({"Read", "Create", "Describe"}))
    topics["items.updates"] = Topic("items.updates", hidden=True)

    wrong = [each for each in kafka(whole(topics=topics, may_join=False)) if each.severity == "fail"]

    assert [each.what for each in wrong] == [
        "rights on: items.gradients",
        "rights on: items.updates",
        "rights on the consumer group",
    ]
    assert "ann, role service, lacks Write" in wrong[0].found
    assert "secret" not in str(wrong)


def test_a_topic_of_a_known_table_that_is_not_there_fails() -> None:
    topics = dict(whole().topics) | {"items.gradients": Topic("items.gradients", missing=True)}
    assert [each.what for each in kafka(whole(topics=topics)) if each.severity == "fail"] == [
        "presence: items.gradients"
    ]


def test_before_the_first_aggregator_the_topics_are_only_not_there_yet() -> None:
    none = {name: Topic(name, missing=True) for name in expected_topics("default", [])}
    found = kafka_verdicts.judge(ADDRESS, Cluster(3, 25, none), Group("default", {}), Role.SERVICE, [])
    assert [each.what for each in found if each.severity == "warn"] == ["topics"]


@pytest.mark.parametrize(
    ("address", "severity"),
    [
        (ADDRESS, "ok"),
        (KafkaAddress(("127.0.0.1:9092",)), "ok"),
        (KafkaAddress(("broker:9092",)), "warn"),
        (KafkaAddress(("broker:9092",), KafkaSecurity("SSL")), "warn"),
        (KafkaAddress(("b:1",), KafkaSecurity("SASL_PLAINTEXT", "PLAIN", "a", "b")), "warn"),
    ],
)
def test_how_the_cluster_is_connected_to_is_judged(address: KafkaAddress, severity: str) -> None:
    assert kafka_verdicts.security(address).severity == severity


@pytest.mark.parametrize(("level", "severity"), [(30, "ok"), (3, "warn"), (None, "warn")])
def test_an_old_kafka_is_warned_of(level: int | None, severity: str) -> None:
    (version,) = (each for each in kafka(whole(level=level)) if each.what == "version")
    assert version.severity == severity


def test_the_consumer_group_is_that_of_the_aggregators() -> None:
    assert consumer_group("songs") == of_the_service("songs")


# -- Redis ---------------------------------------------------------------------------------------

TOLD = {
    "redis_version": "8.2.3",
    "role": "master",
    "loading": "0",
    "aof_enabled": "1",
    "aof_last_write_status": "ok",
    "used_memory": str(100 << 20),
    "total_system_memory": str(16 << 30),
}
CONFIGURED = {"maxmemory": str(1 << 30), "maxmemory-policy": "noeviction", "appendfsync": "everysec"}


def redis(told: Mapping[str, str] | None = None, settings: Mapping[str, str] | None = None) -> dict[str, str]:
    process = Process("a", "redis://host:6379/0", TOLD | dict(told or {}), CONFIGURED | dict(settings or {}))
    found = redis_verdicts.judge(Machine("a", (process,)), Role.SERVICE)
    return {each.what: str(each.severity) for each in found if each.severity != "ok"}


def test_a_redis_as_the_page_sets_it_up_is_fine() -> None:
    assert redis() == {}


@pytest.mark.parametrize(
    ("told", "settings", "expected"),
    [
        ({}, {"maxmemory-policy": "allkeys-lru"}, {"maxmemory-policy": "fail"}),
        ({}, {"maxmemory-policy": "allkeys-lru", "maxmemory": "0"}, {"maxmemory-policy": "warn"}),
        ({"used_memory": str(850 << 20)}, {}, {"memory": "warn"}),
        ({"used_memory": str(1000 << 20)}, {}, {"memory": "fail"}),
        ({"used_memory": str(15 << 30)}, {"maxmemory": "0"}, {"memory": "warn"}),
        ({"aof_enabled": "0"}, {}, {"appendonly": "fail"}),
        ({"aof_last_write_status": "err"}, {}, {"append-only file": "fail"}),
        ({}, {"appendfsync": "no"}, {"appendfsync": "warn"}),
        ({"role": "slave"}, {}, {"role": "fail"}),
        ({"redis_version": "5.0.7"}, {}, {"version": "fail"}),
        ({"redis_version": "9.0.0"}, {}, {"version": "warn"}),
        ({"loading": "1"}, {}, {"state": "fail"}),
    ],
)
def test_a_redis_that_would_lose_rows_is_found(
    told: dict[str, str], settings: dict[str, str], expected: dict[str, str]
) -> None:
    assert redis(told, settings) == expected


def test_without_config_what_info_tells_is_judged() -> None:
    told = TOLD | {"maxmemory": "1000000000", "maxmemory_policy": "volatile-ttl"}
    found = redis_verdicts.judge(Machine("a", (Process("a", "redis://h:1/0", told),)), Role.SERVICE)
    assert [each.what for each in found if each.severity == "fail"] == ["maxmemory-policy"]


def test_slots_without_a_master_fail() -> None:
    found = redis_verdicts.judge(Machine("cluster", (), SLOTS - 3), Role.SERVICE)
    assert [(each.what, str(each.severity)) for each in found] == [("slots", "fail")]


def test_commands_that_can_be_done_without_are_only_warned_of() -> None:
    process = Process("a", "redis://h:1/0", TOLD, CONFIGURED, frozenset({"hset", "config|get"}))
    found = redis_verdicts.judge(Machine("a", (process,)), Role.SERVICE)
    assert [(each.what, str(each.severity)) for each in found if each.severity != "ok"] == [
        ("rights", "fail"),
        ("rights", "warn"),
    ]
