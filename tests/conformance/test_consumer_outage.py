"""A worker whose Kafka broker goes away: it waits, it goes on, and it can be stopped."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from driftline.log import Outgoing, open_log
from driftline.servers import KafkaBroker
from driftline_services.chassis import TopicPartition
from tests.conformance.consumer_recorder import Store
from tests.support.waiting import until

TP = TopicPartition("t", 0)


class Scene:
    """A broker of its own, and a worker process that has applied 100 records."""

    def __init__(self, broker: KafkaBroker, directory: Path) -> None:
        self.broker = broker
        self.store = Store(directory / "store.sqlite")
        asyncio.run(self._create())
        script = Path(__file__).with_name("consumer_recorder.py")
        arguments = [broker.url, "g", str(directory / "store.sqlite"), "w", TP.topic]
        with (directory / "w.err").open("wb") as errors:
            self.worker = subprocess.Popen([sys.executable, str(script), *arguments], stderr=errors)
        self.wait_for(100)

    async def _create(self) -> None:
        async with open_log(self.broker.url) as log:
            await log.create_topic(TP.topic, 1)
        await self.send()

    async def send(self) -> None:
        async with open_log(self.broker.url) as log:
            await log.append(*TP, [Outgoing(b"%d" % number) for number in range(100)])

    def wait_for(self, count: int) -> None:
        until(lambda: self.store.count() == count, f"{count} records are applied", seconds=60)


@pytest.fixture
def scene(kafka_factory: Callable[[], KafkaBroker], tmp_path: Path) -> Iterator[Scene]:
    made = Scene(kafka_factory(), tmp_path)
    yield made
    made.worker.kill()
    made.worker.wait()
    made.store.close()


@pytest.mark.slow
def test_a_worker_outlives_its_broker(scene: Scene) -> None:
    scene.broker.kill()
    scene.broker.restart()
    asyncio.run(scene.send())
    scene.wait_for(200)
    assert scene.worker.poll() is None


@pytest.mark.slow
def test_a_worker_can_be_stopped_while_its_broker_is_away(scene: Scene) -> None:
    scene.broker.kill()
    scene.worker.terminate()
    assert scene.worker.wait(timeout=22) == 0  # the exit timer would end it after 23 s, with status 1
    assert [what for what, _ in scene.store.calls("w")][-2:] == ["release", "closed"]
