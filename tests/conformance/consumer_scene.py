"""What the suites of the chassis share: a log of each backend, workers, a store that judges.

Invariant: every wait ends, and every worker that was started is gone when its test is.
"""

from __future__ import annotations

import asyncio
import subprocess
import sys
import time
import uuid
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from driftline.log import Log, Outgoing, open_log
from driftline_services.chassis import (
    ChassisApp,
    ChassisSettings,
    Handler,
    TopicPartition,
    make_app,
    serve,
)
from tests.conformance.consumer_recorder import SETTINGS, Store

PARTITIONS = 4


PATIENCE = 40.0  # seconds until a condition counts as never met


@pytest.fixture(params=["local", pytest.param("kafka", marks=pytest.mark.kafka)])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "local":
        return f"local://{tmp_path / 'log'}"
    return str(request.getfixturevalue("kafka_url"))


@pytest.fixture
async def log(url: str) -> AsyncIterator[Log]:
    async with open_log(url) as opened:
        yield opened


@pytest.fixture
def name() -> str:
    return f"t{uuid.uuid4().hex[:8]}"


@pytest.fixture
async def topic(log: Log, name: str) -> str:
    await log.create_topic(name, PARTITIONS)
    return name


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    opened = Store(tmp_path / "store.sqlite")
    yield opened
    opened.close()


class Workers:
    """Worker processes of one test."""

    def __init__(self, url: str, group: str, directory: Path) -> None:
        self._arguments = (url, group, str(directory / "store.sqlite"))
        self._directory = directory
        self.running: list[subprocess.Popen[bytes]] = []

    def start(self, worker: str, topic: str, *options: str) -> subprocess.Popen[bytes]:
        script = Path(__file__).with_name("consumer_recorder.py")
        with (self._directory / f"{worker}.err").open("ab") as errors:
            process = subprocess.Popen(
                [sys.executable, str(script), *self._arguments, worker, topic, *options], stderr=errors
            )
        self.running.append(process)
        return process


@pytest.fixture
def workers(url: str, name: str, tmp_path: Path) -> Iterator[Workers]:
    made = Workers(url, name, tmp_path)
    yield made
    for process in made.running:
        process.kill()
        process.wait()
    for errors in sorted(tmp_path.glob("*.err")):
        print(f"--- {errors.name}\n{errors.read_text()}")  # shown when the test fails


async def send(log: Log, topic: str, count: int, first: int = 0, size: int = 0) -> None:
    """Append `count` numbered records to every partition."""
    for partition in range(PARTITIONS):
        for start in range(first, first + count, 100):
            numbers = range(start, min(start + 100, first + count))
            records = [Outgoing(b"%d" % number + b"." * size) for number in numbers]
            for some in [records] if size < 1000 else [[record] for record in records]:
                await log.append(topic, partition, some)


async def until(condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, f"never: {what}"
        await asyncio.sleep(0.02)


async def applied(store: Store, tp: TopicPartition, position: int) -> None:
    await until(lambda: store.position(tp) >= position, f"{tp} is applied up to {position}")


async def exit_status(process: subprocess.Popen[bytes]) -> int:
    await until(lambda: process.poll() is not None, "the worker ends")
    return process.returncode


@asynccontextmanager
async def running(
    url: str, group: str, topics: list[str], handler: Handler, settings: ChassisSettings = SETTINGS
) -> AsyncIterator[ChassisApp]:
    app = make_app(group, url, topics, handler, settings=settings)
    stop = asyncio.Event()
    served = asyncio.create_task(serve(app, stop))
    try:
        yield app
    finally:
        stop.set()
        await served


def assert_exactly_once(store: Store, topic: str, count: int, size: int = 0) -> None:
    for partition in range(PARTITIONS):
        values = store.values(TopicPartition(topic, partition))
        assert values == [b"%d" % number + b"." * size for number in range(count)]
