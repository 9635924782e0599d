"""One worker that reads its own writes: the pipeline gives the bits of a plain loop in one process."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pytest

from driftline import Table
from tests.integration.deployment import KAFKA, LOCAL, Deployment, Floats, Ids, Worker, bits, pushed
from tests.integration.plain import PlainTable, Round, as_bf16, as_f16, as_f32

STEPS = 30
IDS = 150
ON_KAFKA = pytest.param(KAFKA, {"kind": "rowwise_adagrad", "lr": 0.05}, marks=pytest.mark.kafka)
OPTIMIZERS = [
    pytest.param(LOCAL, {"kind": kind, "lr": 0.05})
    for kind in ("sgd", "adagrad", "rowwise_adagrad", "adam", "ftrl")
]


def train(table: Table, plain: PlainTable, steps: int, seed: int = 1) -> None:
    """Take `steps` steps whose gradients depend on the rows read, so that one wrong bit would spread."""
    rng = np.random.default_rng(seed)
    for step in range(steps):
        ids = rng.integers(0, IDS, 24).astype(np.uint64)  # with duplicates
        noise = rng.standard_normal((len(ids), table.spec.dim)).astype(np.float32)
        rows = table.get(ids, read_your_writes=True)
        assert np.array_equal(bits(rows.vectors), bits(plain.get(ids))), f"rows read before step {step}"
        grads = gradients(rows.vectors, noise)
        table.push(ids, grads, step=step, read=rows.read)
        plain.push(ids, grads)


def gradients(rows: Floats, noise: Floats) -> Floats:
    return rows * np.float32(0.5) + noise


def everything() -> Ids:
    return np.arange(IDS + 10, dtype=np.uint64)  # some never trained


@pytest.mark.parametrize(("deployment", "optimizer"), [*OPTIMIZERS, ON_KAFKA], indirect=["deployment"])
def test_rows_after_training_through_the_pipeline_equal_a_plain_loop_bit_for_bit(
    deployment: Deployment, worker: Worker, optimizer: Mapping[str, object]
) -> None:
    spec = deployment.spec(dim=6, shards=3, optimizer=optimizer)
    plain = PlainTable(spec)
    with deployment.client() as client:
        table = client.create_table(spec)
        train(table, plain, STEPS)
        assert np.array_equal(bits(pushed(table, everything())), bits(plain.get(everything())))
        client.snapshot()
    audit = deployment.audit(spec)
    assert audit.ok
    assert audit.rows == len(plain.ids())


@pytest.mark.parametrize(("dtype", "rounding"), [("F16", as_f16), ("BF16", as_bf16)])
def test_gradients_sent_in_half_the_bytes_equal_a_loop_that_rounds_them(
    deployment: Deployment, worker: Worker, dtype: str, rounding: Round
) -> None:
    spec = deployment.spec(dim=6)
    plain = PlainTable(spec, rounding)
    with deployment.client(gradient_dtype=dtype) as client:
        table = client.create_table(spec)
        train(table, plain, 12)
        assert np.array_equal(bits(pushed(table, everything())), bits(plain.get(everything())))


def test_a_trainer_back_from_an_older_checkpoint_repeats_steps_without_effect(
    deployment: Deployment, worker: Worker
) -> None:
    spec = deployment.spec()
    ids = np.arange(40, dtype=np.uint64)
    plain = PlainTable(spec, as_f32)

    def grads(step: int) -> Floats:
        return np.random.default_rng(step).standard_normal((len(ids), spec.dim)).astype(np.float32)

    with deployment.client(producer=spec.name) as client:
        table = client.create_table(spec)
        for step in range(30):
            table.push(ids, grads(step), step=step)
    with deployment.client(producer=spec.name) as client:
        table = client.table(spec.name)
        for step in range(12, 50):  # 12 to 29 a second time
            table.push(ids, grads(step), step=step)
        found = pushed(table, ids)
    for step in range(50):
        plain.push(ids, grads(step))
    assert np.array_equal(bits(found), bits(plain.get(ids)))


def test_two_trainers_on_one_table_lose_nothing_and_repeat_nothing(
    deployment: Deployment, worker: Worker
) -> None:
    spec = deployment.spec(optimizer={"kind": "sgd", "lr": 1.0}, seed=0, scale=0.0)
    ids = np.arange(64, dtype=np.uint64)
    ones = np.ones((len(ids), spec.dim), np.float32)
    with deployment.client() as first, deployment.client() as second:
        tables = [first.create_table(spec), second.create_table(spec)]
        for _ in range(40):
            for table in tables:
                table.push(ids, ones)
        tables[1].wait_readable()
        found = pushed(tables[0], ids)
    assert np.array_equal(found, np.full_like(found, -80.0))  # sums of whole numbers, in any order
