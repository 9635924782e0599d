"""Fixtures and rules for all tests: real servers, and no silent skips.

Invariant: a test that needs a server runs against a real one or fails. It is
skipped only where a person has said so: DRIFTLINE_TESTS_WITHOUT=kafka,redis,s3,chromium,
which CI does not accept.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path

import hypothesis as hypothesis  # now: its plugin would at the end, where 3.11 fails to compile it
import pytest

from driftline.servers import KafkaBroker, RedisServer
from driftline.servers.kafka import find_jars
from tests.support import servers

# Fixture -> the server it needs; a test that asks for one carries the server's marker.
_NEEDS: Mapping[str, str] = {
    "kafka_broker": "kafka",
    "kafka_url": "kafka",
    "kafka_factory": "kafka",
    "redis_server": "redis",
    "redis_url": "redis",
    "redis_factory": "redis",
    "s3": "s3",
    "browser": "chromium",
}
_WITHOUT = pytest.StashKey[frozenset[str]]()
os.environ.setdefault("DRIFTLINE_TOOLS", str(servers.ROOT / ".cache"))


def pytest_configure(config: pytest.Config) -> None:
    without = frozenset(filter(None, os.environ.get("DRIFTLINE_TESTS_WITHOUT", "").split(",")))
    unknown = without - set(_NEEDS.values())
    if unknown:
        raise pytest.UsageError(
            f"DRIFTLINE_TESTS_WITHOUT names {sorted(unknown)}: known are kafka, redis, s3, chromium"
        )
    if without and os.environ.get("CI") == "true":
        raise pytest.UsageError("DRIFTLINE_TESTS_WITHOUT is set: CI runs every test")
    config.stash[_WITHOUT] = without


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    for item in items:
        for fixture in getattr(item, "fixturenames", ()):
            if fixture in _NEEDS:
                item.add_marker(_NEEDS[fixture])
        for server in config.stash[_WITHOUT]:
            if item.get_closest_marker(server):
                item.add_marker(pytest.mark.skip(reason=f"DRIFTLINE_TESTS_WITHOUT names {server}"))


@pytest.fixture(scope="session")
def docker() -> bool:
    """Whether a Docker engine answers: then the shared servers run in containers."""
    return servers.docker_answers()


@pytest.fixture(scope="session")
def kafka_broker(docker: bool, tmp_path_factory: pytest.TempPathFactory) -> Iterator[servers.Kafka]:
    """The session's broker; tests use topics of their own."""
    with servers.kafka(docker, tmp_path_factory.mktemp("kafka")) as running:
        yield running


@pytest.fixture(scope="session")
def kafka_url(kafka_broker: servers.Kafka) -> str:
    return kafka_broker.url


@pytest.fixture(scope="session")
def redis_server(docker: bool, tmp_path_factory: pytest.TempPathFactory) -> Iterator[servers.Redis]:
    """The session's Redis; tests use keys (tables) of their own."""
    with servers.redis(docker, tmp_path_factory.mktemp("redis")) as running:
        yield running


@pytest.fixture(scope="session")
def redis_url(redis_server: servers.Redis) -> str:
    return redis_server.url


@pytest.fixture(scope="session")
def s3(docker: bool, tmp_path_factory: pytest.TempPathFactory) -> Iterator[servers.S3]:
    """The session's S3-compatible store; tests use buckets of their own."""
    with servers.s3(docker, tmp_path_factory.mktemp("s3")) as running:
        yield running


@pytest.fixture
def redis_factory(tmp_path: Path) -> Iterator[Callable[[], RedisServer]]:
    """Start a Redis of the test's own, to kill and restart; each call gives another one, running."""
    with ExitStack() as stack:
        count = iter(range(1_000))
        yield lambda: stack.enter_context(RedisServer(tmp_path / f"redis-{next(count)}"))


@pytest.fixture
def kafka_factory(tmp_path: Path) -> Iterator[Callable[[], KafkaBroker]]:
    """Start a broker of the test's own, to kill and restart; each call gives another one, running."""
    with ExitStack() as stack:
        count = iter(range(1_000))
        yield lambda: stack.enter_context(KafkaBroker(find_jars(), tmp_path / f"kafka-{next(count)}"))
