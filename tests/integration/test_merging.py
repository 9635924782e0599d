"""Steps merged before they are sent: the same rows as a loop that merges, killed or not."""

from __future__ import annotations

import asyncio

import numpy as np
import pytest

import driftline
from driftline.errors import HalfMergedError
from driftline.frames.events import Gradient
from tests.integration.deployment import LOCAL, Deployment, Floats, Ids, Worker, bits, pushed
from tests.integration.plain import PlainTable

IDS = np.arange(60, dtype=np.uint64)
MERGE = 4


def batch(step: int, dim: int) -> tuple[Ids, Floats]:
    rng = np.random.default_rng(step)
    return rng.integers(0, 50, 24).astype(np.uint64), rng.standard_normal((24, dim)).astype(np.float32)


def merged_loop(plain: PlainTable, steps: int, cuts: int = MERGE) -> None:
    """Sum the gradients of `cuts` steps, apply the sum once: gradient accumulation in one process."""
    for start in range(0, steps, cuts):
        parts = [batch(step, plain.spec.dim) for step in range(start, min(start + cuts, steps))]
        plain.push(np.concatenate([ids for ids, _ in parts]), np.concatenate([grads for _, grads in parts]))


def test_merged_steps_equal_a_loop_that_merges_likewise_bit_for_bit(
    deployment: Deployment, worker: Worker
) -> None:
    spec = deployment.spec(dim=5)
    plain = PlainTable(spec)
    with deployment.client(merge_steps=MERGE) as client:
        table = client.create_table(spec)
        for step in range(30):  # the last two wait until the flush
            table.push(*batch(step, 5))
        found = pushed(table, IDS)
    merged_loop(plain, 30)
    assert np.array_equal(bits(found), bits(plain.get(IDS)))
    frames = [event for event in deployment.events(spec, 0) if isinstance(event, Gradient)]
    assert [event.origin.seq >> 16 for event in frames] == [3, 7, 11, 15, 19, 23, 27, 29]
    assert deployment.audit(spec).ok


@pytest.mark.parametrize("deployment", [LOCAL], indirect=True, scope="module")
def test_a_trainer_killed_between_merged_steps_repeats_them_without_effect(
    deployment: Deployment, worker: Worker
) -> None:
    spec = deployment.spec(dim=5)
    plain = PlainTable(spec)
    killed = deployment.client(producer=spec.name, merge_steps=MERGE)
    table = killed.create_table(spec)
    for step in range(19):
        table.push(*batch(step, 5), step=step)
        if step == 11:
            killed.flush()  # the last checkpoint
    killed.close()  # steps 16 to 18 were merged and never sent
    with deployment.client(producer=spec.name, merge_steps=MERGE) as client:
        table = client.table(spec.name)
        for step in range(8, 32):  # behind an older checkpoint still
            table.push(*batch(step, 5), step=step)
        found = pushed(table, IDS)
    merged_loop(plain, 32)
    assert np.array_equal(bits(found), bits(plain.get(IDS)))


@pytest.mark.parametrize("deployment", [LOCAL], indirect=True, scope="module")
def test_a_named_trainer_flushes_between_merged_steps_only_behind_a_cut(
    deployment: Deployment, worker: Worker
) -> None:
    spec = deployment.spec(dim=5)
    plain = PlainTable(spec)
    with deployment.client(producer=spec.name, merge_steps=MERGE) as client:
        table = client.create_table(spec)
        for step in range(6):
            table.push(*batch(step, 5), step=step)
        for wait in (client.flush, table.wait_readable, client.snapshot):
            with pytest.raises(HalfMergedError, match="steps 4 to 5 wait to be merged"):
                wait()
        client.cut()
        found = pushed(table, IDS)
    merged_loop(plain, 6)
    assert np.array_equal(bits(found), bits(plain.get(IDS)))


@pytest.mark.parametrize("deployment", [LOCAL], indirect=True, scope="module")
def test_handles_of_one_table_and_the_asynchronous_client_merge_alike(
    deployment: Deployment, worker: Worker
) -> None:
    spec = deployment.spec(dim=5)
    plain = PlainTable(spec)

    async def train() -> Floats:
        async with driftline.AsyncClient(deployment.options(merge_steps=MERGE)) as client:
            handles = [await client.create_table(spec), await client.table(spec.name)]
            for step in range(10):
                await handles[step % 2].push(*batch(step, 5))
            await client.cut()
            await handles[1].push(*batch(10, 5))
            return (await handles[0].get(IDS, read_your_writes=True)).vectors

    found = asyncio.run(train())
    merged_loop(plain, 10)
    plain.push(*batch(10, 5))
    assert np.array_equal(bits(found), bits(plain.get(IDS)))
