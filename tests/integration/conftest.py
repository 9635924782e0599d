"""The deployment that the tests of a module share, on the embedded log and on a real broker alike."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from driftline import Client
from tests.integration.deployment import KAFKA, LOCAL, Deployment, Worker

BOTH = (LOCAL, pytest.param(KAFKA, marks=pytest.mark.kafka))


@pytest.fixture(scope="module", params=BOTH)
def deployment(
    request: pytest.FixtureRequest, redis_url: str, tmp_path_factory: pytest.TempPathFactory
) -> Deployment:
    """A group of tables, without an aggregator; tests use tables of their own."""
    directory = tmp_path_factory.mktemp("deployment")
    return Deployment(request.param, _log_url(request, f"{directory}/log"), redis_url, directory)


@pytest.fixture(scope="module")
def worker(deployment: Deployment) -> Iterator[Worker]:
    """The aggregator of `deployment`: not to be killed by a test."""
    with deployment.worker() as running:
        yield running


@pytest.fixture
def client(deployment: Deployment, worker: Worker) -> Iterator[Client]:
    """A fresh producer on `deployment`, with an aggregator running."""
    with deployment.client() as connected:
        yield connected


@pytest.fixture(params=BOTH)
def own_deployment(
    request: pytest.FixtureRequest, redis_url: str, tmp_path_factory: pytest.TempPathFactory
) -> Deployment:
    """A group of the test's own, without an aggregator: for tests that start and stop their own."""
    directory = tmp_path_factory.mktemp("deployment")
    return Deployment(request.param, _log_url(request, f"{directory}/log"), redis_url, directory)


def _log_url(request: pytest.FixtureRequest, directory: str) -> str:
    if request.param == LOCAL:
        return f"local://{directory}"
    return str(request.getfixturevalue("kafka_url"))  # only then: a local run needs no broker
