"""A cluster that asks for TLS, a login and rights: who is let in, and who may do what.

Every right given here comes from the commands of docs/how-to/kafka-security.md.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from aiokafka import AIOKafkaProducer
from aiokafka.errors import TopicAuthorizationFailedError

from driftline import Client, Init, Options, TableSpec, topics
from driftline.config import new_key
from driftline.dlq import letters
from driftline.errors import ConfigError, DriftlineError, SigningKeyError, UnknownTopicError
from driftline.frames.events import BARRIER, SPEC
from driftline.frames.headers import Keyring
from driftline.log import KafkaAddress, KafkaSecurity, Outgoing, open_log, parse_address
from driftline.log.kafka.client import arguments, ended
from driftline.ops.requests import Signer
from driftline.servers import RedisServer
from tests.integration.commands import driftline
from tests.integration.deployment import KAFKA, Deployment, Worker, pushed
from tests.support.kafka_secure import (
    ROLES,
    SecureBroker,
    documented_acls,
    grant,
    make_authority,
    secure_broker,
)
from tests.support.waiting import until

pytestmark = pytest.mark.kafka

SPEC_OF_ITEMS = TableSpec("items", 4, "default", 2, {"kind": "sgd", "lr": 1.0}, Init(7, 0.1))
FORGER = Signer("default", b"a forger's name!", Keyring.parse(new_key()))
SECRET = "s3cret-of-the-tests"


@dataclass(frozen=True, slots=True)
class Scene:
    """The page's deployment: group `default`, table `items`, an aggregator as user `service`."""

    broker: SecureBroker
    deployment: Deployment  # as the service sees it
    worker: Worker

    def client(self, role: str, key: str | None = None) -> Client:
        deployment = self.deployment
        security = self.broker.security(role)
        return Client(Options(deployment.log_url, deployment.redis_url, "default", key, security=security))

    def seen_by(self, role: str) -> Deployment:
        return replace(self.deployment, security=self.broker.security(role))


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    directory = tmp_path_factory.mktemp("secure")
    with secure_broker(directory) as broker, RedisServer(directory / "redis") as redis:
        for role in ROLES:
            asyncio.run(grant(broker.broker.operator_url, documented_acls(role)))
        deployment = Deployment(
            KAFKA, broker.url, redis.url, directory, "default", security=broker.security("service")
        )
        with deployment.worker() as worker:
            made = Scene(broker, deployment, worker)
            until(lambda: _has_ops(made), "the service makes the ops topic", seconds=60)
            with made.client("operator", deployment.key) as operator:
                operator.create_table(SPEC_OF_ITEMS)
            yield made


def _has_ops(scene: Scene) -> bool:
    async def run() -> bool:
        async with open_log(scene.broker.url, scene.broker.security("service")) as log:
            return topics.ops("default") in await log.topics()

    return asyncio.run(run())


def test_the_pipeline_runs_with_each_part_under_a_user_of_its_own(scene: Scene) -> None:
    ids = np.arange(50, dtype=np.uint64)
    with scene.client("trainer") as trainer:
        table = trainer.table("items")
        before = pushed(table, ids)
        table.push(ids, np.ones((50, 4), np.float32))
        after = pushed(table, ids)
    assert np.array_equal(after, before - np.float32(1.0))
    assert scene.seen_by("reader").updates(SPEC_OF_ITEMS, 0)
    with scene.client("operator", scene.deployment.key) as operator:
        assert operator.snapshot().tables == {"items": 2}
    assert scene.deployment.audit(SPEC_OF_ITEMS).ok


ALL_TOPICS = (
    *("items.gradients", "items.updates", "items.dlq"),
    *("default.ops", "default.ops.dlq", "driftline.ingest", "driftline.ingest.dlq"),
)
MAY_WRITE = {
    "trainer": {"items.gradients"},
    "reader": set[str](),
    "ingest": {"driftline.ingest"},
    "operator": {"default.ops"},
}
MAY_READ = {
    "trainer": set[str](),
    "reader": {"items.updates"},
    "ingest": set[str](),
    "operator": {"default.ops", "default.ops.dlq"},
}


@pytest.mark.parametrize("role", MAY_WRITE)
def test_a_role_may_write_what_the_page_says_and_nothing_else(scene: Scene, role: str) -> None:
    async def refused() -> set[str]:
        found = set()
        # by hand: driftline would not even ask for a topic that it is not shown
        address = _address(scene, role)
        producer = AIOKafkaProducer(**arguments(address))
        async with producer:
            for topic in set(ALL_TOPICS) - MAY_WRITE[role]:
                try:
                    await producer.send_and_wait(topic, b"", partition=0)
                except TopicAuthorizationFailedError:
                    found.add(topic)
        await ended(address)
        return found

    assert asyncio.run(refused()) == set(ALL_TOPICS) - MAY_WRITE[role]


def _address(scene: Scene, role: str) -> KafkaAddress:
    address = parse_address(scene.broker.url, scene.broker.security(role))
    assert isinstance(address, KafkaAddress)
    return address


@pytest.mark.parametrize("role", MAY_READ)
def test_a_role_may_read_what_the_page_says_and_nothing_else(scene: Scene, role: str) -> None:
    async def readable() -> set[str]:
        found = set()
        async with open_log(scene.broker.url, scene.broker.security(role)) as log:
            for topic in ALL_TOPICS:
                try:
                    await log.reader(topic, 0, 0).read(wait=2.0)  # an empty topic is refused late
                    found.add(topic)
                except (ConfigError, UnknownTopicError):
                    continue
        return found

    assert asyncio.run(readable()) == MAY_READ[role]


def test_a_trainer_that_forges_an_operation_is_refused_by_the_broker(scene: Scene) -> None:
    forged = FORGER.request(BARRIER, "default", {"kind": "version"}, 0)
    with pytest.raises(DriftlineError, match=r"default\.ops.*ACL"):
        scene.seen_by("trainer").append("default.ops", 0, forged)


@pytest.mark.parametrize("kind", [BARRIER, SPEC])
def test_whom_the_broker_lets_write_operations_still_needs_the_key(scene: Scene, kind: str) -> None:
    body = {"kind": "version"} if kind == BARRIER else TableSpec("forged", 4, "default", 1).to_json()
    forged = FORGER.request(kind, "default", body, 0)
    at = scene.seen_by("operator").append("default.ops", 0, forged)
    until(lambda: b"%d" % at in _refused(scene), f"the op at {at} is refused", seconds=20)
    with scene.client("operator", scene.deployment.key) as operator:
        assert list(operator.tables()) == ["items"]


def _refused(scene: Scene) -> set[bytes]:
    found = set()
    for record in scene.deployment.records(topics.refused_ops("default"), 0):
        headers = dict(record.headers)
        if headers[letters.REASON] == b"forged":
            found.add(headers[letters.OFFSET])
    return found


REFUSALS: dict[str, tuple[Callable[[SecureBroker, Path], KafkaSecurity], str]] = {
    "wrong password": (
        lambda broker, _: broker.security("trainer", password=SECRET),
        r"user 'trainer', mechanism SCRAM-SHA-512\): authentication failed",
    ),
    "unknown user": (
        lambda broker, _: KafkaSecurity("SASL_SSL", "SCRAM-SHA-512", "nobody", SECRET, broker.ca_file),
        "user 'nobody'.*authentication failed",
    ),
    "mechanism that is not offered": (
        lambda broker, _: KafkaSecurity("SASL_SSL", "PLAIN", "trainer", SECRET, broker.ca_file),
        "mechanism PLAIN.*kafka_sasl_mechanism",
    ),
    "untrusted authority": (
        lambda broker, directory: broker.security("trainer", ca_file=make_authority(directory / "other")),
        r"certificate is not trusted by .*/other/ca\.pem.*kafka_ca_file",
    ),
}


@pytest.mark.parametrize("case", REFUSALS)
def test_whoever_is_not_let_in_learns_why_and_no_password_is_shown(
    scene: Scene, tmp_path: Path, case: str
) -> None:
    make, message = REFUSALS[case]
    with pytest.raises(ConfigError, match=message) as caught:
        asyncio.run(open_log(scene.broker.url, make(scene.broker, tmp_path)).start())
    assert SECRET not in repr(caught.value)


def test_a_worker_that_is_not_let_in_ends_and_says_why(scene: Scene, tmp_path: Path) -> None:
    wrong = scene.broker.security("service", password=SECRET)
    deployment = replace(scene.deployment, security=wrong, directory=tmp_path)
    with deployment.worker() as worker:
        until(lambda: not worker.process.alive, "the worker ends", seconds=20)
        told = worker.log
    assert "the worker cannot run" in told
    assert "user 'service', mechanism SCRAM-SHA-512): authentication failed" in told
    assert "Traceback" not in told
    assert SECRET not in told


def test_no_log_of_the_service_shows_a_password(scene: Scene) -> None:
    assert not [user for user, password in scene.broker.passwords.items() if password in scene.worker.log]


def test_dead_letters_of_a_secured_cluster_are_listed_and_dropped(scene: Scene, tmp_path: Path) -> None:
    service = scene.deployment
    at = service.append("items.gradients", 0, Outgoing(b"junk"))
    until(lambda: bool(service.dead_letters(SPEC_OF_ITEMS, 0)), "the record is refused", seconds=20)
    dlq = partial(driftline, "dlq", cwd=tmp_path, settings=service.environment())
    assert f"0:{at}\ttruncated" in dlq("ls", "items").stdout
    assert dlq("drop", "items", f"0:{at}").stdout == "1 of 1 dropped\n"
    assert not dlq("ls", "items").stdout
    unknown = dlq("ls", "item")
    assert unknown.returncode == 2
    assert "did you mean items" in unknown.stderr


def test_an_operator_with_another_key_is_told_so(scene: Scene) -> None:
    with scene.client("operator", new_key()) as operator, pytest.raises(SigningKeyError):
        operator.create_table(replace(SPEC_OF_ITEMS, name="more"), timeout=60)
