"""A worker that starts before its broker: it waits, says so now and then, and can be stopped."""

from __future__ import annotations

from pathlib import Path

import pytest

from driftline.servers import KafkaBroker
from driftline.servers.kafka import find_jars
from driftline.servers.local import free_ports
from tests.integration.deployment import KAFKA, Deployment
from tests.support.waiting import until

pytestmark = pytest.mark.kafka
WAITING = "connecting to the log: waiting"


@pytest.fixture
def absent(redis_url: str, tmp_path: Path) -> Deployment:
    """A deployment whose broker does not run yet."""
    return Deployment(KAFKA, f"kafka://127.0.0.1:{free_ports(1)[0]}", redis_url, tmp_path)


def test_a_worker_waits_for_its_broker_and_then_works(absent: Deployment, tmp_path: Path) -> None:
    port = int(absent.log_url.rpartition(":")[2])
    with absent.worker() as worker:
        until(lambda: WAITING in worker.log, "the worker says that it waits", seconds=20)
        with KafkaBroker(find_jars(), tmp_path / "kafka", port=port), absent.client() as client:
            client.create_table(absent.spec())
            assert worker.process.alive
            worker.end()
        told = worker.log
    assert told.count(WAITING) == 1  # though it tried every few tenths of a second
    assert "connecting to the log: done" in told
    assert "Traceback" not in told
    assert told.count("Unable connect to") == 1


def test_a_worker_that_waits_for_its_broker_can_be_stopped(absent: Deployment) -> None:
    with absent.worker() as worker:
        until(lambda: WAITING in worker.log, "the worker says that it waits", seconds=20)
        worker.process.stop(5.0)  # which would kill it after five seconds
        assert worker.log.rstrip().endswith("stopped before it was ready")
