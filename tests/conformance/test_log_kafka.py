"""What only the Kafka backend has: topic settings, producers that failed, brokers that are away."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable

import pytest
import pytest_asyncio
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType

from driftline.errors import InputError, LogUnavailableError
from driftline.log import Outgoing, open_log
from driftline.log.kafka import appender
from driftline.log.kafka.budget import Budget
from driftline.servers import KafkaBroker

pytestmark = pytest.mark.asyncio

NOBODY = "kafka://127.0.0.1:1"


@pytest_asyncio.fixture
async def admin(kafka_url: str) -> AsyncIterator[AIOKafkaAdminClient]:
    """A client that does what driftline does not."""
    client = AIOKafkaAdminClient(bootstrap_servers=kafka_url.removeprefix("kafka://"))
    await client.start()
    yield client
    await client.close()


async def test_topics_are_created_with_log_append_time(
    kafka_url: str, admin: AIOKafkaAdminClient, topic: str
) -> None:
    async with open_log(kafka_url) as log:
        await log.create_topic(topic, 1)
    (answer,) = await admin.describe_configs([ConfigResource(ConfigResourceType.TOPIC, topic)])
    settings = {name: value for _, _, _, _, entries in answer.resources for name, value, *_ in entries}
    assert settings["message.timestamp.type"] == "LogAppendTime"
    assert int(settings["max.message.bytes"]) > 8 << 20


async def test_after_a_refused_batch_the_next_one_goes_through_on_a_fresh_producer(
    kafka_url: str, admin: AIOKafkaAdminClient, topic: str
) -> None:
    # The refused batch has used up sequence numbers: its producer could not go on.
    await admin.create_topics([NewTopic(topic, 1, 1, topic_configs={"max.message.bytes": "1000"})])
    async with open_log(kafka_url) as log:
        await log.create_topic(topic, 1)
        assert await log.append(topic, 0, [Outgoing(b"small")]) == 0
        with pytest.raises(InputError, match=r"max\.message\.bytes"):
            await log.append(topic, 0, [Outgoing(bytes(5000))])
        assert await log.append(topic, 0, [Outgoing(b"small")]) == 1


async def test_after_an_append_that_timed_out_the_next_one_goes_through_on_a_fresh_producer(
    kafka_url: str, topic: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with open_log(kafka_url) as log:
        await log.create_topic(topic, 1)
        await log.append(topic, 0, [Outgoing(b"before")])
        with monkeypatch.context() as patched:
            patched.setattr(appender, "APPEND_TIMEOUT_S", 0.0)
            with pytest.raises(LogUnavailableError, match=topic):
                await log.append(topic, 0, [Outgoing(b"unknown")])
        first = await log.append(topic, 0, [Outgoing(b"after")])
        records = await log.reader(topic, 0, 0).read(wait=20)
    assert [r.value for r in records if r.value != b"unknown"] == [b"before", b"after"]
    assert first >= 1


async def test_a_broker_killed_and_restarted_costs_errors_but_no_records(
    kafka_factory: Callable[[], KafkaBroker], topic: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(appender, "APPEND_TIMEOUT_S", 1.0)
    broker = kafka_factory()
    async with open_log(broker.url) as log:
        await log.create_topic(topic, 1)
        reader = log.reader(topic, 0, 0)
        await log.append(topic, 0, [Outgoing(b"0")])
        assert [r.value for r in await reader.read(wait=20)] == [b"0"]
        await asyncio.to_thread(broker.kill)
        with pytest.raises(LogUnavailableError, match=broker.url):
            await log.append(topic, 0, [Outgoing(b"1")])
        with pytest.raises(LogUnavailableError, match=broker.url):
            await reader.read()
        await asyncio.to_thread(broker.start)
        async with asyncio.timeout(60):
            while True:
                try:
                    first = await log.append(topic, 0, [Outgoing(b"1")])
                    break
                except LogUnavailableError:
                    pass
        records = list(await reader.read(wait=20))
        while records[-1].offset < first:
            records += await reader.read(wait=20)
    assert {r.value for r in records} == {b"1"}
    assert [r.offset for r in records] == list(range(1, first + 1))


async def test_an_unreachable_cluster_is_named_soon(capfd: pytest.CaptureFixture[str]) -> None:
    begun = time.monotonic()
    with pytest.raises(LogUnavailableError, match=NOBODY):
        await open_log(NOBODY).start()
    assert time.monotonic() - begun < 15
    assert capfd.readouterr().err == ""


async def test_the_budget_is_given_out_in_order_and_never_exceeded() -> None:
    budget, order = Budget(10), list[int]()
    most = 0

    async def use(size: int) -> None:
        nonlocal most
        async with budget.take(size):
            order.append(size)
            most = max(most, budget.taken)
            await asyncio.sleep(0)

    await asyncio.gather(*(use(size) for size in (6, 5, 4, 1, 10, 2)))
    assert order == [6, 5, 4, 1, 10, 2]
    assert most <= 10
    assert budget.taken == 0


async def test_more_than_the_whole_budget_is_granted_alone() -> None:
    budget = Budget(10)
    async with budget.take(25):
        waiting = asyncio.create_task(budget.take(1).__aenter__())
        await asyncio.sleep(0)
        assert not waiting.done()
    await waiting


async def test_a_cancelled_taker_holds_nothing() -> None:
    budget = Budget(10)
    async with budget.take(10):
        waiting = asyncio.create_task(budget.take(5).__aenter__())
        await asyncio.sleep(0)
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)
    assert budget.taken == 0
