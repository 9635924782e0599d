"""Workers that come and go while rows are being flushed, again and again."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.integration.deployment import KAFKA, Deployment
from tests.integration.traffic import Traffic, assert_nothing_lost_nothing_twice
from tests.support.waiting import until

pytestmark = [pytest.mark.kafka, pytest.mark.slow]
ROUNDS = 3


def test_a_second_worker_joins_and_leaves_under_load_without_a_trace_in_the_rows(
    kafka_url: str, redis_url: str, tmp_path: Path
) -> None:
    deployment = Deployment(KAFKA, kafka_url, redis_url, tmp_path)
    with deployment.worker("steady"), deployment.client() as client:
        table = client.create_table(deployment.spec(shards=4))
        with Traffic(deployment, table) as traffic:
            for round in range(ROUNDS):
                with deployment.worker(f"guest-{round}") as guest:
                    until(lambda: len(deployment.owners(table.spec)) == 2, "two workers share", seconds=30)
                    traffic.wait_for_steps(20)
                    if round % 2:
                        guest.kill()  # otherwise it leaves in order
                until(lambda: len(deployment.owners(table.spec)) == 1, "one is left", seconds=30)
                traffic.wait_for_steps(20)
            traffic.wait_until_applied()
        assert_nothing_lost_nothing_twice(deployment, table, traffic.steps)
