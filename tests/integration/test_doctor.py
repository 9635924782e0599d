"""`driftline doctor` against the real parts: a local stack, Redis with users, a secured Kafka."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from driftline import TableSpec, topics
from driftline.log import KafkaSecurity, open_log
from driftline.log.kafka.topics import TOPIC_SETTINGS
from driftline.servers import RedisServer
from driftline.servers.local import HOST, free_ports
from tests.integration.commands import driftline, running
from tests.integration.deployment import KAFKA, LOCAL, Deployment
from tests.integration.test_redis_security import SECRETS, as_user, guarded
from tests.support.kafka_admin import alter
from tests.support.kafka_secure import ROLES, SecureBroker, documented_acls, grant, secure_broker
from tests.support.redis_variants import TunedRedis, redis_cluster
from tests.support.waiting import until

__all__ = ["guarded"]  # a fixture
SEVERITIES = ("ok", "warn", "fail")
ITEMS = TableSpec("items", 4, "default", 2, {"kind": "sgd", "lr": 1.0})


@dataclass(frozen=True, slots=True)
class Told:
    """What `driftline doctor --json` said."""

    status: int
    severities: dict[tuple[str, str], str]  # by area and what
    text: str

    @property
    def wrong(self) -> set[tuple[str, str]]:
        return {what for what, severity in self.severities.items() if severity == "fail"}


def doctor(deployment: Deployment, *arguments: str) -> Told:
    """Run the doctor on a deployment, in a directory of its own."""
    here = deployment.directory / "doctor"
    here.mkdir(exist_ok=True)
    done = driftline("doctor", "--json", *arguments, cwd=here, settings=deployment.environment())
    assert done.stdout, done.stderr
    said = json.loads(done.stdout)
    assert said["status"] == done.returncode
    severities: dict[tuple[str, str], str] = {}
    for each in said["findings"]:
        key = (each["area"].partition(" ")[0], each["what"])
        severities[key] = max(severities.get(key, "ok"), each["severity"], key=SEVERITIES.index)
    return Told(done.returncode, severities, done.stdout + done.stderr)


def test_a_local_stack_is_well_and_looking_changes_nothing(tmp_path: Path) -> None:
    with running("up", "--http-port", "0", cwd=tmp_path) as up:
        until(lambda: "Ctrl-C" in (tmp_path / "output.txt").read_text(), "the stack is up", seconds=30)
        created = driftline("table", "create", "items", "--dim", "4", "--shards", "2", cwd=tmp_path)
        assert created.returncode == 0, created.stderr

        done = driftline("doctor", cwd=tmp_path)

        assert up.poll() is None
    assert done.returncode == 0, done.stdout
    assert "machine_version 1 serves: items (2 shards)" in done.stdout
    assert "0 wrong" in done.stdout
    assert (tmp_path / ".driftline" / "key").read_text().strip() not in done.stdout


def test_where_there_is_no_deployment_the_doctor_says_so_and_makes_none(tmp_path: Path) -> None:
    done = driftline("doctor", cwd=tmp_path)
    assert done.returncode == 2
    assert "driftline up" in done.stdout
    assert list(tmp_path.iterdir()) == []


def test_a_part_that_is_away_does_not_keep_the_others_from_being_looked_at(tmp_path: Path) -> None:
    (port,) = free_ports(1)
    (tmp_path / "log" / "log").mkdir(parents=True)
    url = f"redis://ann:s3cret@{HOST}:{port}/0"

    told = doctor(Deployment(LOCAL, f"local://{tmp_path}/log", url, tmp_path))

    assert told.status == 2
    assert ("redis", "reachable") in told.wrong
    assert told.severities["log", "writable"] == "ok"
    assert "s3cret" not in told.text


@pytest.mark.redis
def test_a_redis_that_loses_rows_fails(tmp_path: Path) -> None:
    (tmp_path / "log" / "log").mkdir(parents=True)
    tuned = {"maxmemory": "100mb", "maxmemory-policy": "allkeys-lru", "appendonly": "no"}
    with TunedRedis(tmp_path / "redis", tuned) as server:
        told = doctor(Deployment(LOCAL, f"local://{tmp_path}/log", server.url, tmp_path))
    assert told.status == 1
    assert told.wrong == {("redis", "maxmemory-policy"), ("redis", "appendonly")}


@pytest.mark.redis
@pytest.mark.parametrize("role", ["service", "trainer", "reader", "auditor"])
def test_the_redis_users_of_the_page_have_what_their_role_needs(
    guarded: TunedRedis, tmp_path: Path, role: str
) -> None:
    (tmp_path / "log" / "log").mkdir(parents=True)
    told = doctor(
        Deployment(LOCAL, f"local://{tmp_path}/log", as_user(guarded, role), tmp_path), "--role", role
    )
    assert told.status == 0, told.text
    assert told.severities["redis", "rights"] == "ok"
    assert SECRETS[role] not in told.text


@pytest.mark.redis
def test_a_redis_user_without_the_rights_of_a_role_is_told_and_nothing_is_written(
    guarded: TunedRedis, tmp_path: Path
) -> None:
    (tmp_path / "log" / "log").mkdir(parents=True)
    before = guarded.tell("DBSIZE")
    local = Deployment(LOCAL, f"local://{tmp_path}/log", as_user(guarded, "auditor"), tmp_path)

    told = doctor(local, "--role", "service")

    assert told.status == 1
    assert told.wrong == {("redis", "rights")}
    assert "lacks del, expire, hdel, hget, hset, persist, rename, unlink, watch" in told.text
    doctor(local.with_redis(as_user(guarded, "service")), "--role", "service")
    assert guarded.tell("DBSIZE") == before


@pytest.mark.redis
def test_every_master_of_a_cluster_is_looked_at(tmp_path: Path) -> None:
    (tmp_path / "log" / "log").mkdir(parents=True)
    with redis_cluster(tmp_path / "cluster") as cluster:
        told = doctor(Deployment(LOCAL, f"local://{tmp_path}/log", cluster.url, tmp_path))
        assert told.status == 0, told.text
        assert told.severities["redis", "slots"] == "ok"
        assert all(f"{HOST}:{node.port}" in told.text for node in cluster.nodes[:3])


@dataclass(frozen=True, slots=True)
class Scene:
    """A secured cluster with an aggregator of group `default` and the table `items`."""

    broker: SecureBroker
    deployment: Deployment  # as the service sees it

    def seen_by(self, user: str) -> Deployment:
        return replace(self.deployment, security=self.broker.security(user))


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    directory = tmp_path_factory.mktemp("doctor")
    with secure_broker(directory) as broker, RedisServer(directory / "redis") as redis:
        for role in ROLES:
            asyncio.run(grant(broker.broker.operator_url, documented_acls(role)))
        secure = Deployment(
            KAFKA, broker.url, redis.url, directory, "default", security=broker.security("service")
        )
        with secure.worker():
            until(lambda: _has_ops(secure), "the service makes the ops topic", seconds=60)
            with secure.client() as client:
                client.create_table(ITEMS)
            yield Scene(broker, secure)


def _has_ops(deployment: Deployment) -> bool:
    async def run() -> bool:
        async with open_log(deployment.log_url, deployment.security) as log:
            return topics.ops(deployment.group) in await log.topics()

    return asyncio.run(run())


@pytest.mark.kafka
@pytest.mark.parametrize("role", ROLES)
def test_the_kafka_users_of_the_page_have_what_their_role_needs(scene: Scene, role: str) -> None:
    told = doctor(scene.seen_by(role), "--role", role, "--table", "items")
    assert told.status == 0, told.text
    assert told.severities["kafka", "rights"] == "ok"
    assert not [password for password in scene.broker.passwords.values() if password in told.text]


@pytest.mark.kafka
def test_what_a_user_lacks_for_a_role_is_named(scene: Scene) -> None:
    told = doctor(scene.seen_by("trainer"), "--role", "service", "--table", "items")
    assert told.status == 1
    assert "trainer, role service, lacks Create, Read, Write" in told.text  # on what it may not even see
    assert 'trainer, role service, lacks Create, Read"' in told.text
    assert ("kafka", "rights on the consumer group") in told.wrong


@pytest.mark.kafka
def test_a_login_that_is_refused_cannot_be_checked_and_is_not_shown(scene: Scene) -> None:
    wrong = KafkaSecurity("SASL_SSL", "SCRAM-SHA-512", "trainer", "s3cret-of-mine", scene.broker.ca_file)
    told = doctor(replace(scene.deployment, security=wrong))
    assert told.status == 2
    assert "authentication failed" in told.text
    assert "s3cret-of-mine" not in told.text


@pytest.mark.kafka
def test_a_topic_that_somebody_changed_fails(kafka_url: str, redis_url: str, tmp_path: Path) -> None:
    deployment = Deployment(KAFKA, kafka_url, redis_url, tmp_path)
    spec = deployment.spec()
    with deployment.worker(), deployment.client() as client:
        client.create_table(spec)
    assert doctor(deployment).wrong == set()

    topic = f"{spec.name}.gradients"
    alter(kafka_url, topic, dict(TOPIC_SETTINGS) | {"cleanup.policy": "compact", "max.message.bytes": "1000"})
    told = doctor(deployment)

    assert told.status == 1
    assert told.wrong == {("kafka", f"cleanup.policy: {topic}"), ("kafka", f"max.message.bytes: {topic}")}
