"""The audit that ends the demo, where somebody has gone back to a version meanwhile."""

from __future__ import annotations

import asyncio

import pytest

from driftline import Client
from driftline.demo.pipeline import audit_demo, demo_spec
from driftline.demo.tables import Settings
from driftline.stack.local import Endpoints
from driftline.versions.source import StoredVersions
from tests.integration.deployment import LOCAL, Deployment
from tests.integration.test_restore import train
from tests.integration.versions import cut_version


@pytest.mark.parametrize("deployment", [LOCAL], indirect=True, scope="module")
def test_the_audit_of_the_demo_replays_over_a_rollback(deployment: Deployment, client: Client) -> None:
    endpoints = Endpoints(deployment.log_url, deployment.redis_url, deployment.group, deployment.key)
    shapes = {"users": Settings().users(), "items": Settings().items()}
    specs = [demo_spec(name, shape, endpoints, 2) for name, shape in shapes.items()]
    tables = [client.create_table(spec) for spec in specs]
    for table in tables:
        train(table, 5)
    version = cut_version(deployment, client, specs)
    for table in tables:
        train(table, 5, seed=2)
    client.restore(version.version)
    for table in tables:
        train(table, 5, seed=3)
        table.wait_readable()
    audit = asyncio.run(audit_demo(endpoints, 2, StoredVersions(lambda: deployment.repository)))
    assert audit.ok, audit.detail
