"""Requests for ops as the ops log holds them: repeated, of a stranger, refused."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from driftline import Client, topics
from driftline.client.operations import Operations
from driftline.config import new_key
from driftline.errors import OpRefusedError, SigningKeyError
from driftline.frames.events import BARRIER, RESTORE, Op
from driftline.ids import producer_id
from driftline.log import Outgoing, open_log
from tests.integration.deployment import Deployment
from tests.support.waiting import until


def refused(deployment: Deployment) -> dict[bytes | None, bytes]:
    """Return the reason by place: a router that starts again may write a letter again."""
    letters = deployment.records(topics.refused_ops(deployment.group), 0)
    return {letter.key: dict(letter.headers)["dl-reason"] for letter in letters}


def test_a_captured_request_is_not_carried_out_again_also_not_by_the_next_router(
    own_deployment: Deployment,
) -> None:
    deployment, spec = own_deployment, own_deployment.spec()
    with deployment.worker() as worker, deployment.client() as client:
        client.create_table(spec)
        client.snapshot()
        captured = deployment.records(topics.ops(deployment.group), 0)[-1]
        again = Outgoing(captured.value, captured.key, captured.headers)
        for _ in range(2):
            at = b"0:%d" % deployment.append(topics.ops(deployment.group), 0, again)
            until(lambda key=at: key in refused(deployment), "it is refused", seconds=30)  # type: ignore[misc]
            worker.restart()
        assert set(refused(deployment).values()) == {b"replayed_op"}
        last = client.snapshot()
        barriers = [
            event.origin.seq
            for event in deployment.events(spec, 0)
            if isinstance(event, Op) and event.kind == BARRIER
        ]
        assert sorted(set(barriers)) == [captured.offset + 1, last.op]
        assert deployment.audit(spec).ok


def test_a_client_with_another_key_is_told_so_at_once(deployment: Deployment, client: Client) -> None:
    spec = deployment.spec()
    client.create_table(spec)
    stranger = replace(deployment, key=new_key())
    with stranger.client() as other:
        with pytest.raises(SigningKeyError, match="is signed with key"):
            other.tables()
        with pytest.raises(SigningKeyError, match="is signed with key"):
            other.snapshot(timeout=60)
        with pytest.raises(SigningKeyError, match="give this client the `key` that the aggregators have"):
            other.create_table(stranger.spec(), timeout=60)


def test_whoever_waits_for_an_op_that_is_refused_learns_why(deployment: Deployment, client: Client) -> None:
    client.create_table(deployment.spec())

    async def run() -> None:
        async with open_log(deployment.log_url, deployment.security) as log:
            operations = Operations(log, deployment.group, deployment.keyring, producer_id())
            asked = await operations.ask(RESTORE, deployment.group, {"version": ""})
            await operations.wait(asked, asyncio.sleep(60), 60)

    with pytest.raises(OpRefusedError, match="was refused: bad_op") as caught:
        asyncio.run(run())
    assert caught.value.reason == "bad_op"
