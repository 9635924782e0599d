"""Fixtures of the conformance suites: every backend, each test with topics of its own."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import uuid
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest
import pytest_asyncio

from driftline.log import Log, open_log

WORKER = Path(__file__).with_name("log_worker.py")


@pytest.fixture(params=["local", pytest.param("kafka", marks=pytest.mark.kafka)])
def log_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """URL of a log of each backend; `kafka_url` is the session's broker."""
    if request.param == "local":
        return f"local://{tmp_path}/log"
    return str(request.getfixturevalue("kafka_url"))


@pytest_asyncio.fixture
async def log(log_url: str) -> AsyncIterator[Log]:
    """A started log."""
    async with open_log(log_url) as opened:
        yield opened


@pytest.fixture
def topic() -> str:
    """A topic name that no other test uses: the broker outlives the tests."""
    return f"t.{uuid.uuid4().hex}"


Spawn = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture
def spawn() -> Iterator[Spawn]:
    """Start log_worker.py with some arguments; whatever still runs is killed at the end."""
    running: list[subprocess.Popen[str]] = []

    def start(*arguments: object) -> subprocess.Popen[str]:
        command = [sys.executable, str(WORKER), *map(str, arguments)]
        child = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env={**os.environ}
        )
        running.append(child)
        return child

    yield start
    for child in running:
        if child.poll() is None:
            child.send_signal(signal.SIGKILL)
        child.communicate()
