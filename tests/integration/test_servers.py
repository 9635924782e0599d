"""The real servers: they keep what they acknowledged, and nothing of them stays behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import obstore
import pytest
import redis
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.errors import UnknownTopicOrPartitionError
from obstore.exceptions import AlreadyExistsError
from obstore.store import S3Store

from driftline.servers import KafkaBroker, RedisServer, S3Gateway
from tests.support import servers
from tests.support.waiting import until

ADDRESSES_THEN_WAIT = """
import sys, pathlib, signal
from driftline.servers import RedisServer
server = RedisServer(pathlib.Path(sys.argv[1])).start()
print(server.pid, flush=True)
signal.pause()
"""


def gone(pid: int) -> bool:
    """Whether a process has ended; one that only waits to be reaped has."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return True
    return state == "Z"


@pytest.mark.parametrize("end", ["kill", "stop"])
def test_redis_keeps_what_it_acknowledged(redis_factory: Callable[[], RedisServer], end: str) -> None:
    server = redis_factory()
    with redis.Redis.from_url(server.url) as client:
        client.set("row", b"\x00\x01")
        getattr(server, end)()
        with pytest.raises(redis.ConnectionError):
            client.ping()
        server.start()
        assert client.get("row") == b"\x00\x01"


def test_redis_refuses_to_evict(redis_factory: Callable[[], RedisServer]) -> None:
    with redis.Redis.from_url(redis_factory().url) as client:
        assert client.config_get("maxmemory-policy", "appendonly") == {
            "maxmemory-policy": "noeviction",
            "appendonly": "yes",
        }


@pytest.mark.redis
def test_the_redis_of_the_wheel_will_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with RedisServer(tmp_path / "data") as server, redis.Redis.from_url(server.url) as client:
        assert client.ping()


@pytest.mark.redis
@pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGTERM])
def test_redis_dies_with_its_parent(tmp_path: Path, end: signal.Signals) -> None:
    parent = subprocess.Popen(
        [sys.executable, "-c", ADDRESSES_THEN_WAIT, str(tmp_path)], stdout=subprocess.PIPE, text=True
    )
    assert parent.stdout is not None
    with parent.stdout:
        pid = int(parent.stdout.readline())
        parent.send_signal(end)
        parent.wait()
    until(lambda: gone(pid), f"redis-server {pid} is gone")


@pytest.mark.redis
def test_a_successor_waits_for_the_server_of_a_killed_parent(tmp_path: Path) -> None:
    parent = subprocess.Popen(
        [sys.executable, "-c", ADDRESSES_THEN_WAIT, str(tmp_path)], stdout=subprocess.PIPE, text=True
    )
    assert parent.stdout is not None
    with parent.stdout:
        parent.stdout.readline()
        parent.kill()
        parent.wait()
    with RedisServer(tmp_path) as server:
        assert server.running


async def append(broker: str, topic: str, value: bytes) -> int:
    async with AIOKafkaProducer(bootstrap_servers=broker, acks="all") as producer:
        return int((await producer.send_and_wait(topic, value, partition=0)).offset)


async def read(broker: str, topic: str, count: int) -> list[bytes]:
    consumer = AIOKafkaConsumer(bootstrap_servers=broker, enable_auto_commit=False)
    await consumer.start()
    try:
        partition = TopicPartition(topic, 0)
        consumer.assign([partition])
        await consumer.seek_to_beginning(partition)
        return [(await consumer.getone()).value for _ in range(count)]
    finally:
        await consumer.stop()


async def create(broker: str, topic: str) -> None:
    admin = AIOKafkaAdminClient(bootstrap_servers=broker)
    await admin.start()
    try:
        settings = {"message.timestamp.type": "LogAppendTime"}
        await admin.create_topics([NewTopic(topic, 1, 1, topic_configs=settings)])
    finally:
        await admin.close()


async def test_kafka_keeps_what_it_acknowledged_over_a_kill_and_a_restart(
    kafka_factory: Callable[[], KafkaBroker],
) -> None:
    server = kafka_factory()
    address = server.bootstrap
    await create(address, "t.gradients")
    assert await append(address, "t.gradients", b"one") == 0
    server.kill()
    server.start()
    assert server.bootstrap == address
    assert await append(address, "t.gradients", b"two") == 1
    server.restart()
    assert await read(address, "t.gradients", 2) == [b"one", b"two"]


async def test_kafka_takes_a_record_of_several_mebibytes(kafka_broker: servers.Kafka) -> None:
    topic = f"large-{os.getpid()}-{time.time_ns()}"
    await create(kafka_broker.bootstrap, topic)
    large = os.urandom(6 << 20)
    async with AIOKafkaProducer(
        bootstrap_servers=kafka_broker.bootstrap, max_request_size=8 << 20
    ) as producer:
        await producer.send_and_wait(topic, large, partition=0)
    assert await read(kafka_broker.bootstrap, topic, 1) == [large]


async def test_kafka_creates_no_topic_by_accident(kafka_broker: servers.Kafka) -> None:
    address = kafka_broker.bootstrap
    async with AIOKafkaProducer(bootstrap_servers=address, request_timeout_ms=1_000) as producer:
        with pytest.raises(UnknownTopicOrPartitionError):
            await producer.partitions_for("never-created")


def bucket_of(store: servers.S3) -> S3Store:
    return S3Store(
        store.create_bucket(),
        endpoint=store.endpoint,
        access_key_id=store.access_key,
        secret_access_key=store.secret_key,
        region=store.region,
        virtual_hosted_style_request=False,
        client_options={"allow_http": True},
    )


def test_s3_creates_an_object_only_once(s3: servers.S3) -> None:
    bucket = bucket_of(s3)
    obstore.put(bucket, "versions/V-R-1.0/m-0", b"first", mode="create")
    with pytest.raises(AlreadyExistsError):
        obstore.put(bucket, "versions/V-R-1.0/m-0", b"second", mode="create")
    assert bytes(obstore.get(bucket, "versions/V-R-1.0/m-0").bytes()) == b"first"


@pytest.mark.s3
def test_s3_keeps_its_objects_over_a_kill(tmp_path: Path) -> None:
    with S3Gateway(tmp_path) as server:
        view = servers.S3(
            server.endpoint, server.access_key, server.secret_key, server.region, server.objects
        )
        bucket = bucket_of(view)
        obstore.put(bucket, "segment", b"rows")
        server.kill()
        server.start()
        assert bytes(obstore.get(bucket, "segment").bytes()) == b"rows"


@pytest.fixture
def make_servers(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-m", "driftline.servers", "--data", str(tmp_path / "data")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, start_new_session=True) as running:
        yield running
        running.kill()


@pytest.mark.kafka
@pytest.mark.redis
def test_make_servers_prints_what_to_export_and_leaves_nothing_running(
    make_servers: subprocess.Popen[str],
) -> None:
    assert make_servers.stdout is not None
    exports = dict(
        make_servers.stdout.readline().strip().removeprefix("export ").split("=", 1) for _ in range(2)
    )
    assert exports["DRIFTLINE_LOG_URL"].startswith("kafka://127.0.0.1:")
    with redis.Redis.from_url(exports["DRIFTLINE_REDIS_URL"]) as client:
        redis_pid = int(client.info("server")["process_id"])
    children = Path(f"/proc/{make_servers.pid}/task").glob("*/children")
    pids = [int(pid) for each in children for pid in each.read_text().split()]
    assert redis_pid in pids
    make_servers.send_signal(signal.SIGINT)
    assert make_servers.wait(30) == 0
    assert all(gone(pid) for pid in pids)
