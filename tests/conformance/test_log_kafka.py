"""What only the Kafka backend has: topic settings, producers that failed, brokers that are away."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType

from driftline.errors import InputError, LogUnavailableError
from driftline.log import Outgoing, open_log
from driftline.log.kafka.budget import Budget

pytestmark = [pytest.mark.asyncio, pytest.mark.kafka]

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
