"""Several aggregators share the shards; whichever goes, the others go on from the very bit."""

from __future__ import annotations

import numpy as np
import pytest

from tests.integration.deployment import KAFKA, Deployment, Worker
from tests.integration.traffic import Traffic, assert_nothing_lost_nothing_twice
from tests.support.waiting import until


def wait_until_shared(deployment: Deployment, traffic: Traffic, workers: int = 2) -> None:
    until(
        lambda: len(deployment.owners(traffic.spec)) == workers,
        f"{workers} workers own the shards of {traffic.spec.name}",
        seconds=30,
    )


def test_when_one_of_two_workers_is_killed_the_other_takes_its_shards_over(
    own_deployment: Deployment,
) -> None:
    deployment = own_deployment
    with deployment.worker("one") as one, deployment.worker("two"), deployment.client() as client:
        table = client.create_table(deployment.spec(shards=4))
        with Traffic(deployment, table) as traffic:
            wait_until_shared(deployment, traffic)
            one.kill()
            wait_until_shared(deployment, traffic, workers=1)
            traffic.wait_until_applied()
        assert_nothing_lost_nothing_twice(deployment, table, traffic.steps)


def test_a_second_worker_takes_its_share_of_the_shards_while_events_flow(own_deployment: Deployment) -> None:
    deployment = own_deployment
    with deployment.worker("one"), deployment.client() as client:
        table = client.create_table(deployment.spec(shards=4))
        with Traffic(deployment, table) as traffic:
            traffic.wait_until_applied()
            with deployment.worker("two"):
                wait_until_shared(deployment, traffic)
                traffic.wait_until_applied()
            wait_until_shared(deployment, traffic, workers=1)  # it left in order
            traffic.wait_until_applied()
        assert_nothing_lost_nothing_twice(deployment, table, traffic.steps)


def test_a_table_created_while_two_workers_are_busy_with_another_is_served_by_both(
    own_deployment: Deployment,
) -> None:
    deployment = own_deployment
    with deployment.worker("one"), deployment.worker("two"), deployment.client() as client:
        first = client.create_table(deployment.spec(shards=4))
        with Traffic(deployment, first) as busy:
            wait_until_shared(deployment, busy)
            second = client.create_table(deployment.spec(shards=4))
            with Traffic(deployment, second) as traffic:
                wait_until_shared(deployment, traffic)
                traffic.wait_until_applied()
            busy.wait_until_applied()
        assert_nothing_lost_nothing_twice(deployment, first, busy.steps)
        assert_nothing_lost_nothing_twice(deployment, second, traffic.steps)


def freeze_until_taken_over(deployment: Deployment, worker: Worker, traffic: Traffic) -> None:
    """Stop `worker` for longer than its session; its shards go to the other one meanwhile."""
    mine = deployment.owners(traffic.spec)
    worker.freeze()
    try:
        until(
            lambda: len(deployment.owners(traffic.spec)) < len(mine),
            "the shards of the frozen worker have another owner",
            seconds=60,
        )
        traffic.wait_until_applied()
    finally:
        worker.thaw()


@pytest.mark.parametrize("own_deployment", [pytest.param(KAFKA, marks=pytest.mark.kafka)], indirect=True)
def test_a_worker_frozen_beyond_its_session_does_no_harm_when_it_wakes(own_deployment: Deployment) -> None:
    deployment = own_deployment
    with deployment.worker("one") as one, deployment.worker("two"), deployment.client() as client:
        table = client.create_table(deployment.spec(shards=4))
        with Traffic(deployment, table) as traffic:
            wait_until_shared(deployment, traffic)
            freeze_until_taken_over(deployment, one, traffic)
            traffic.wait_until_applied()
        assert_nothing_lost_nothing_twice(deployment, table, traffic.steps)


@pytest.mark.parametrize("own_deployment", [pytest.param(KAFKA, marks=pytest.mark.kafka)], indirect=True)
def test_a_worker_with_a_name_is_back_on_its_shards_before_its_session_ends(
    own_deployment: Deployment,
) -> None:
    deployment = own_deployment.with_session_timeout(20.0)
    with (
        deployment.worker("one", instance_id="one") as one,
        deployment.worker("two", instance_id="two"),
        deployment.client() as client,
    ):
        table = client.create_table(deployment.spec(shards=4))
        with Traffic(deployment, table) as traffic:
            wait_until_shared(deployment, traffic)
            traffic.wait_until_applied()
            others = deployment.owners(traffic.spec)
            one.restart()
            until(
                lambda: len(deployment.owners(traffic.spec) - others) == 1,
                "the worker is back on its own shards",
                seconds=15,  # less than the session
            )
            traffic.wait_until_applied()
            assert len(deployment.owners(traffic.spec) & others) == 1  # the other one kept its shards
        assert_nothing_lost_nothing_twice(deployment, table, traffic.steps)


def test_a_worker_that_ends_in_order_leaves_nothing_to_be_done_again(own_deployment: Deployment) -> None:
    deployment = own_deployment
    with deployment.client() as client:
        with deployment.worker("one") as one:
            table = client.create_table(deployment.spec(shards=2))
            for step in range(50):
                table.push(np.arange(40, dtype=np.uint64), np.ones((40, 4), np.float32), step=step)
            table.wait_readable()
            one.end()
        for shard in range(2):
            stored = deployment.position(table.spec, shard)
            assert stored[b"published"] == stored[b"next"]
    assert deployment.audit(table.spec).ok
