"""The real servers that tests share: containers where a Docker engine answers, else local processes.

Invariant: a test sees an address and nothing of how the server came to be, so the
same tests run either way.
"""

from __future__ import annotations

import secrets
import shutil
import subprocess
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import redis as redis_client
import yaml
from testcontainers.core.container import DockerContainer

from driftline.servers import KafkaBroker, RedisServer, S3Gateway
from driftline.servers.kafka import brokers_alive, find_jars
from driftline.servers.local import HOST, free_ports
from tests.support.waiting import until

ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True, slots=True)
class Kafka:
    """A running broker."""

    url: str

    @property
    def bootstrap(self) -> str:
        return self.url.removeprefix("kafka://")


@dataclass(frozen=True, slots=True)
class Redis:
    """A running Redis; tests share it and use keys of their own."""

    url: str


@dataclass(frozen=True, slots=True)
class S3:
    """A running S3-compatible store."""

    endpoint: str
    access_key: str
    secret_key: str
    region: str
    buckets: Path  # on this machine: a bucket is a directory

    def create_bucket(self) -> str:
        """Create a bucket that no other test uses and return its name."""
        name = f"test-{secrets.token_hex(6)}"
        (self.buckets / name).mkdir()
        return name


def docker_answers() -> bool:
    """Return whether a Docker ENGINE answers: the client alone is on many machines."""
    if shutil.which("docker") is None:
        return False
    try:
        probe = subprocess.run(
            ["docker", "version", "--format", "{{.Server.Version}}"],
            capture_output=True,
            check=False,
            timeout=10,
        )
    except subprocess.TimeoutExpired:
        return False
    return probe.returncode == 0


def image(service: str) -> str:
    """Return the image of a service in docker-compose.yml: the one place where versions are pinned."""
    compose = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
    return str(compose["services"][service]["image"])


@contextmanager
def kafka(docker: bool, directory: Path) -> Iterator[Kafka]:
    if not docker:
        with KafkaBroker(find_jars(), directory) as broker:
            yield Kafka(broker.url)
        return
    port = free_ports(1)[0]  # advertised to clients, so it must be known before the start
    container = DockerContainer(image("kafka")).with_bind_ports(port, port)
    for key, value in {
        "KAFKA_NODE_ID": "1",
        "KAFKA_PROCESS_ROLES": "broker,controller",
        "KAFKA_LISTENERS": f"PLAINTEXT://:{port},CONTROLLER://:9093",
        "KAFKA_ADVERTISED_LISTENERS": f"PLAINTEXT://{HOST}:{port}",
        "KAFKA_CONTROLLER_LISTENER_NAMES": "CONTROLLER",
        "KAFKA_LISTENER_SECURITY_PROTOCOL_MAP": "CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT",
        "KAFKA_CONTROLLER_QUORUM_VOTERS": "1@localhost:9093",
        "KAFKA_AUTO_CREATE_TOPICS_ENABLE": "false",
        "KAFKA_MESSAGE_MAX_BYTES": str(8 << 20),
        "KAFKA_REPLICA_FETCH_MAX_BYTES": str(8 << 20),
        "KAFKA_GROUP_INITIAL_REBALANCE_DELAY_MS": "0",
        "KAFKA_GROUP_MIN_SESSION_TIMEOUT_MS": "1000",
        "KAFKA_OFFSETS_TOPIC_REPLICATION_FACTOR": "1",
        "KAFKA_TRANSACTION_STATE_LOG_REPLICATION_FACTOR": "1",
        "KAFKA_TRANSACTION_STATE_LOG_MIN_ISR": "1",
    }.items():
        container = container.with_env(key, value)
    with container:
        until(lambda: brokers_alive(HOST, port) > 0, "the broker in its container answers", seconds=60)
        yield Kafka(f"kafka://{HOST}:{port}")


@contextmanager
def redis(docker: bool, directory: Path) -> Iterator[Redis]:
    if not docker:
        with RedisServer(directory) as server:
            yield Redis(server.url)
        return
    container = (
        DockerContainer(image("redis")).with_command("redis-server --appendonly yes").with_exposed_ports(6379)
    )
    with container:
        url = f"redis://{HOST}:{container.get_exposed_port(6379)}/0"
        until(lambda: _pings(url), "the Redis in its container answers", seconds=60)
        yield Redis(url)


@contextmanager
def s3(docker: bool, directory: Path) -> Iterator[S3]:
    if not docker:
        with S3Gateway(directory) as gateway:
            yield S3(
                gateway.endpoint, gateway.access_key, gateway.secret_key, gateway.region, gateway.objects
            )
        return
    secret = secrets.token_hex(16)
    buckets = directory / "objects"
    buckets.mkdir(parents=True)
    (directory / "metadata").mkdir()
    container = (
        DockerContainer(image("s3"))
        .with_env("ROOT_ACCESS_KEY", "driftline")
        .with_env("ROOT_SECRET_KEY", secret)
        .with_volume_mapping(str(directory), "/data", "rw")
        .with_command("--port :7070 posix --sidecar /data/metadata /data/objects")
        .with_exposed_ports(7070)
    )
    with container:
        port = int(container.get_exposed_port(7070))
        until(lambda: _listens(port), "the S3 gateway in its container listens", seconds=60)
        yield S3(f"http://{HOST}:{port}", "driftline", secret, "us-east-1", buckets)


def _pings(url: str) -> bool:
    try:
        with redis_client.Redis.from_url(url) as client:
            return bool(client.ping())
    except redis_client.RedisError:
        return False


def _listens(port: int) -> bool:
    try:
        urllib.request.urlopen(f"http://{HOST}:{port}/", timeout=2.0).close()
    except urllib.error.HTTPError:
        return True  # unsigned, hence refused: but by the gateway
    except OSError:
        return False
    return True
