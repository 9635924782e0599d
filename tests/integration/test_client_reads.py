"""What a reader gets: rows, positions and rules for rows that are not there, in one round trip."""

from __future__ import annotations

import inspect
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Any

import numpy as np
import pytest

import driftline
from driftline import AsyncClient, AsyncTable, Client, Rows, Table
from driftline.errors import DriftlineError, InputError
from driftline.frames.events import Gradient
from driftline.ids import lsn, shard_of
from tests.integration.deployment import LOCAL, Deployment, bits, pushed
from tests.integration.gate import Gate
from tests.integration.plain import PlainTable

SGD = {"kind": "sgd", "lr": 1.0}


def test_a_read_includes_this_client_s_pushes_when_asked_to(deployment: Deployment, client: Client) -> None:
    table = client.create_table(deployment.spec(dim=1, optimizer=SGD, scale=0.0))
    for step in range(30):
        table.push([17], [[1.0]])
        assert table.get([17], read_your_writes=True).vectors[0, 0] == -(step + 1)


def test_an_id_asked_for_several_times_is_answered_as_often(deployment: Deployment, client: Client) -> None:
    table = client.create_table(deployment.spec())
    table.upsert([1, 2], [[1, 2, 3, 4], [5, 6, 7, 8]])
    rows = table.get([2, 1, 2, 9, 1, 9], read_your_writes=True)
    assert rows.vectors[[0, 1, 2, 4]].tolist() == [[5, 6, 7, 8], [1, 2, 3, 4], [5, 6, 7, 8], [1, 2, 3, 4]]
    assert np.array_equal(bits(rows.vectors[3]), bits(rows.vectors[5]))
    assert rows.found.tolist() == [True, True, True, False, True, False]


def test_a_row_that_does_not_exist_is_answered_by_the_rule_chosen(
    deployment: Deployment, client: Client
) -> None:
    spec = deployment.spec()
    table = client.create_table(spec)
    table.upsert([1], np.ones((1, 4)))
    table.wait_readable()
    ids = np.array([1, 12345], np.uint64)
    assert np.array_equal(bits(table.get(ids).vectors[1:]), bits(PlainTable(spec).get(ids[1:])))
    assert table.get(ids, on_missing="zero").vectors[1].tolist() == [0.0] * 4
    assert np.isnan(table.get(ids, on_missing="mask").vectors[1]).all()
    assert not np.isnan(table.get(ids, on_missing="mask").vectors[0]).any()
    with pytest.raises(InputError, match="1 of 2 ids have no row, the first is 12345"):
        table.get(ids, on_missing="raise")


def test_the_row_of_an_unseen_id_is_the_one_it_is_born_with(deployment: Deployment, client: Client) -> None:
    table = client.create_table(deployment.spec(optimizer=SGD))
    ids = np.array([5, 2**64 - 1, 0], np.uint64)
    before = table.get(ids).vectors
    table.push(ids, np.zeros((3, 4), np.float32))
    after = table.get(ids, read_your_writes=True, on_missing="raise").vectors
    assert np.array_equal(bits(before), bits(after))


def test_a_row_deleted_and_trained_again_is_born_anew(deployment: Deployment, client: Client) -> None:
    spec = deployment.spec()
    table, plain = client.create_table(spec), PlainTable(spec)
    ids, grads = np.array([1, 2, 3], np.uint64), np.full((3, 4), 0.5, np.float32)
    table.push(ids, grads)
    table.delete(ids[:2])
    assert table.get(ids, read_your_writes=True).found.tolist() == [False, False, True]
    table.push(ids[:1], grads[:1])
    plain.push(ids, grads)
    plain.delete(ids[:2])
    plain.push(ids[:1], grads[:1])
    rows = table.get(ids, read_your_writes=True)
    assert np.array_equal(bits(rows.vectors), bits(plain.get(ids)))  # its accumulator, too, began anew
    assert rows.found.tolist() == [True, False, True]


def test_a_read_tells_the_event_that_last_changed_each_row_and_where_each_shard_stood(
    deployment: Deployment, client: Client
) -> None:
    spec = deployment.spec(shards=3)
    table = client.create_table(spec)
    ids = np.arange(30, dtype=np.uint64)
    table.push(ids, np.ones((30, 4), np.float32))
    table.push(ids[:10], np.ones((10, 4), np.float32))
    rows = table.get(np.arange(40, dtype=np.uint64), read_your_writes=True)
    expected = dict.fromkeys(range(40), 0)
    for shard in range(3):
        log = deployment.events(spec, shard)
        for offset, event in enumerate(log):
            expected |= dict.fromkeys(event.ids.tolist(), lsn(1, offset))
        last = max(offset for offset, event in enumerate(log) if isinstance(event, Gradient))
        assert lsn(1, last) < rows.read[shard] <= lsn(1, len(log))
        assert rows.epoch[shard] == 0
    assert rows.lsn.tolist() == list(expected.values())


def test_a_gradient_carries_the_position_of_the_oldest_read_it_may_rest_on(
    deployment: Deployment, client: Client
) -> None:
    spec = deployment.spec(shards=1)
    table = client.create_table(spec)
    ids = np.arange(3, dtype=np.uint64)
    first = table.get(ids, read_your_writes=True)
    table.upsert([9], np.ones((1, 4)))
    table.get(ids, read_your_writes=True)
    table.push(ids, np.ones((3, 4)))
    table.push(ids, np.ones((3, 4)))  # no read since the last push
    client.flush()
    with_read, without = (event for event in deployment.events(spec, 0) if isinstance(event, Gradient))
    assert with_read.read_pos == first.read[0]
    assert without.read_pos is None


@pytest.fixture
def gate(deployment: Deployment) -> Iterator[Gate]:
    with Gate(deployment.redis_url) as running:
        yield running


@pytest.mark.parametrize("deployment", [LOCAL], indirect=True)
def test_a_read_of_1024_ids_over_8_shards_is_one_round_trip(
    deployment: Deployment, client: Client, gate: Gate
) -> None:
    spec = deployment.spec(shards=8)
    ids = np.arange(1024, dtype=np.uint64)
    assert len(np.unique(shard_of(ids, 8))) == 8
    table = client.create_table(spec)
    table.upsert(ids, np.repeat(ids[:, None], 4, axis=1))
    table.wait_readable()
    with deployment.with_redis(gate.url).client() as reader:
        far = reader.table(spec.name)
        far.get(ids)  # connects
        gate.hold_replies_until(commands=2 * 8)
        rows = far.get(ids, on_missing="raise")
    assert rows.vectors[:, 0].tolist() == ids.tolist()
    assert gate.commands == 2 * 8


@pytest.mark.parametrize("deployment", [LOCAL], indirect=True)
async def test_an_asynchronous_read_of_1024_ids_over_8_shards_is_one_round_trip(
    deployment: Deployment, worker: object, gate: Gate
) -> None:
    spec = deployment.spec(shards=8)
    ids = np.arange(1024, dtype=np.uint64)
    async with AsyncClient(deployment.with_redis(gate.url).options()) as reader:
        far = await reader.create_table(spec)
        await far.upsert(ids, np.repeat(ids[:, None], 4, axis=1))
        await far.wait_readable()
        gate.hold_replies_until(commands=2 * 8)
        rows = await far.get(ids, on_missing="raise")
    assert rows.vectors[:, 0].tolist() == ids.tolist()
    assert gate.commands == 2 * 8


# -- the asynchronous client beside the synchronous one ------------------------------------

IDS = np.array([7, 3, 7, 11], np.uint64)
GRADS = np.arange(16, dtype=np.float32).reshape(4, 4)
SCRIPT: list[tuple[str, tuple[Any, ...], dict[str, Any]]] = [
    ("get", (IDS,), {}),
    ("push", (IDS, GRADS), {"step": 3}),
    ("get", (IDS,), {"read_your_writes": True}),
    ("push", (IDS, GRADS), {"step": 3}),  # refused
    ("push", (IDS, GRADS[:, :2]), {}),  # refused
    ("push", (IDS, GRADS), {"lr": 0.5}),
    ("upsert", (IDS, GRADS), {}),  # refused: 7 twice
    ("upsert", ([20, 21], GRADS[:2]), {"state": [[1.0], [2.0]]}),
    ("delete", ([3, 99],), {}),
    ("flush", (), {}),
    ("wait_readable", (), {"timeout": 20.0}),
    ("get", ([3, 7, 11, 20, 21],), {"on_missing": "zero"}),
    ("get", ([3],), {"on_missing": "raise"}),  # refused
    ("get", ([3],), {"on_missing": "other"}),  # refused
    ("get", ([],), {}),
    ("get", ([-1],), {}),  # refused
]
Answer = tuple[object, ...]


def answer(result: object) -> Answer:
    if isinstance(result, Rows):
        # not the offsets: a router that starts again repeats ops, so two logs need not be of one length
        return (result.vectors.tobytes(), result.found.tolist(), sorted(result.read), result.epoch)
    return (result,)


def refusal(error: DriftlineError, table: str) -> Answer:
    return (type(error), str(error).replace(table, "TABLE"))


@pytest.fixture
async def async_client(deployment: Deployment, worker: object) -> AsyncIterator[AsyncClient]:
    async with AsyncClient(deployment.options()) as client:
        yield client


async def test_the_asynchronous_client_answers_every_call_as_the_synchronous_one(
    deployment: Deployment, client: Client, async_client: AsyncClient
) -> None:
    here, there = deployment.spec(), deployment.spec()  # differ in their names only
    table, async_table = client.create_table(here), await async_client.create_table(there)
    for name, arguments, options in SCRIPT:
        assert call(table, name, arguments, options) == await call_async(
            async_table, name, arguments, options
        ), name
    assert client.tables() == await async_client.tables()


def call(table: Table, name: str, arguments: tuple[Any, ...], options: dict[str, Any]) -> Answer:
    method: Callable[..., object] = getattr(table, name)
    try:
        return answer(method(*arguments, **options))
    except DriftlineError as error:
        return refusal(error, table.spec.name)


async def call_async(
    table: AsyncTable, name: str, arguments: tuple[Any, ...], options: dict[str, Any]
) -> Answer:
    method: Callable[..., Awaitable[object]] = getattr(table, name)
    try:
        return answer(await method(*arguments, **options))
    except DriftlineError as error:
        return refusal(error, table.spec.name)


@pytest.mark.parametrize(
    ("one", "other", "names"),
    [
        (
            driftline.Client,
            driftline.AsyncClient,
            ["table", "create_table", "tables", "snapshot", "flush", "close"],
        ),
        (
            driftline.Table,
            driftline.AsyncTable,
            ["get", "push", "upsert", "delete", "flush", "wait_readable"],
        ),
    ],
)
def test_both_clients_have_the_same_methods_with_the_same_parameters(
    one: type, other: type, names: list[str]
) -> None:
    for name in names:
        parameters = [inspect.signature(getattr(each, name)).parameters for each in (one, other)]
        assert parameters[0] == parameters[1], name


def test_a_row_written_by_one_client_is_read_by_any_other(deployment: Deployment, client: Client) -> None:
    table = client.create_table(deployment.spec())
    table.upsert([2**63], [[1, 2, 3, 4]])
    table.wait_readable()
    with deployment.client() as other:
        assert pushed(other.table(table.spec.name), np.array([2**63], np.uint64)).tolist() == [[1, 2, 3, 4]]
