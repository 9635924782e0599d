"""What a producer may hand over, and what is refused by name before anything is sent."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from driftline import Client, Options, Table
from driftline.errors import ConfigError, DriftlineError, InputError, RepeatedStepError, UnknownTableError
from driftline.frames.events import Gradient, Op
from tests.integration.deployment import LOCAL, Deployment, pushed

DIM = 4
IDS = np.array([3, 1, 2], np.uint64)
ROWS = np.ones((3, DIM), np.float32)


def with_value(value: float) -> np.ndarray[tuple[int, ...], np.dtype[np.float64]]:
    rows = np.ones((3, DIM))
    rows[1, 2] = value
    return rows


REFUSED: dict[str, tuple[Callable[[Table], None], str]] = {
    "gradients of another dimension": (lambda t: t.push(IDS, ROWS[:, :3]), "grads .* need 4 columns, got 3"),
    "fewer gradients than ids": (lambda t: t.push(IDS, ROWS[:2]), "grads .* need 3 rows, .* got 2"),
    "a gradient that is NaN": (
        lambda t: t.push(IDS, with_value(np.nan)),
        "grads .*: row 1 is not finite",
    ),
    "a gradient that is infinite": (
        lambda t: t.push(IDS, with_value(np.inf)),
        "grads .*: row 1 is not finite",
    ),
    "a gradient beyond float32": (
        lambda t: t.push(IDS, with_value(1e39)),
        "grads .*: row 1 is not finite",
    ),
    "gradients of one id whose sum is not finite": (
        lambda t: t.push(np.array([7, 7], np.uint64), np.full((2, DIM), 3e38)),
        "the sum of the gradients of id 7 is not finite",
    ),
    "gradients that are text": (
        lambda t: t.push(IDS, [["a"] * DIM] * 3),
        "grads .* must be numbers",
    ),
    "an id below zero": (lambda t: t.push(np.array([3, -1, 2]), ROWS), "ids must be whole numbers .*-1"),
    "an id that is no whole number": (lambda t: t.push([3.0, 1.0, 2.5], ROWS), "ids must be whole numbers"),
    "ids of two dimensions": (lambda t: t.push(IDS.reshape(1, 3), ROWS), "ids must have one dimension"),
    "a learning rate below zero": (lambda t: t.push(IDS, ROWS, lr=-0.1), "lr -0.1"),
    "a step below zero": (lambda t: t.push(IDS, ROWS, step=-1), "step -1"),
    "a step beyond 48 bits": (lambda t: t.push(IDS, ROWS, step=1 << 48), "step 281474976710656"),
    "a row given twice": (lambda t: t.upsert([5, 6, 5], ROWS), "upsert: id 5 is given more than once"),
    "a row that is NaN": (
        lambda t: t.upsert(IDS, with_value(np.nan)),
        "rows .*: row 1 is not finite",
    ),
    "a row of another dimension": (
        lambda t: t.upsert(IDS, ROWS[:, :1]),
        "rows .* need 4 columns",
    ),
    "optimizer state of another size": (
        lambda t: t.upsert(IDS, ROWS, state=ROWS),
        "states .* need 1 columns, got 4",
    ),
    "a delete of an id below zero": (lambda t: t.delete([-4]), r"ids must be whole numbers .*\[-4\]"),
    "a read of an id below zero": (lambda t: unread(t.get([-4])), r"ids must be whole numbers .*\[-4\]"),
    "a read with an unknown rule for missing rows": (
        lambda t: unread(t.get(IDS, on_missing="guess")),
        "on_missing 'guess': one of init, zero, raise, mask",
    ),
}


def unread(_: object) -> None:
    """A read whose rows nobody looks at."""


@pytest.fixture(scope="module")
def table_name(deployment: Deployment, worker: object) -> str:
    """A table that nothing is ever sent to."""
    spec = deployment.spec(dim=DIM)
    with deployment.client() as client:
        client.create_table(spec)
    return spec.name


@pytest.mark.parametrize("deployment", [LOCAL], indirect=True, scope="module")
@pytest.mark.parametrize(("call", "message"), REFUSED.values(), ids=REFUSED.keys())
def test_refused_at_the_client_by_name_and_nothing_is_sent(
    deployment: Deployment, client: Client, table_name: str, call: Callable[[Table], None], message: str
) -> None:
    table = client.table(table_name)
    with pytest.raises(InputError, match=message):
        call(table)
    client.flush()
    events = [*deployment.events(table.spec, 0), *deployment.events(table.spec, 1)]
    assert {type(event) for event in events} == {Op}


@pytest.mark.parametrize("name", ["", "ops", "ingest:0", "dlq:0:17"])
@pytest.mark.parametrize("deployment", [LOCAL], indirect=True, scope="module")
def test_a_producer_name_of_the_router_s_is_refused(deployment: Deployment, name: str) -> None:
    with pytest.raises(ConfigError, match=f"producer name {name!r}"):
        deployment.client(producer=name)


def test_an_unknown_table_is_refused(client: Client) -> None:
    with pytest.raises(UnknownTableError, match="no table 'nobody'"):
        client.table("nobody")


@pytest.mark.parametrize("deployment", [LOCAL], indirect=True, scope="module")
def test_a_table_of_another_group_is_refused(deployment: Deployment, client: Client) -> None:
    spec = Deployment(LOCAL, deployment.log_url, deployment.redis_url, deployment.directory).spec()
    with pytest.raises(ConfigError, match="has group"):
        client.create_table(spec)


@pytest.mark.parametrize("deployment", [LOCAL], indirect=True, scope="module")
def test_an_op_without_the_deployment_s_key_is_refused(deployment: Deployment, worker: object) -> None:
    options = Options(deployment.log_url, deployment.redis_url, deployment.group)
    with (
        Client(options) as keyless,
        pytest.raises(ConfigError, match="give this client the deployment's key"),
    ):
        keyless.create_table(deployment.spec())


@pytest.mark.parametrize("step", [5, 4, 0])
def test_a_step_that_does_not_rise_is_refused(client: Client, table_name: str, step: int) -> None:
    table = client.table(table_name)
    table.push(IDS[:0], ROWS[:0], step=5)
    with pytest.raises(RepeatedStepError, match=rf"step {step} was pushed before \(the last was 5\)"):
        table.push(IDS[:0], ROWS[:0], step=step)


@pytest.mark.parametrize("deployment", [LOCAL], indirect=True, scope="module")
def test_a_gradient_beyond_the_dtype_it_travels_in_is_refused(
    deployment: Deployment, worker: object, table_name: str
) -> None:
    with deployment.client(gradient_dtype="F16") as client:
        table = client.table(table_name)
        with pytest.raises(InputError, match=r"id 9 .*F16"):
            table.push([9], np.full((1, DIM), 70_000.0))


@pytest.mark.parametrize("deployment", [LOCAL], indirect=True, scope="module")
def test_a_client_goes_on_after_a_refusal(deployment: Deployment, client: Client) -> None:
    table = client.create_table(deployment.spec(optimizer={"kind": "sgd", "lr": 1.0}, seed=0, scale=0.0))
    with pytest.raises(DriftlineError):
        table.push(IDS, with_value(np.nan), step=3)
    table.push(IDS, ROWS, step=3)  # a refused push has used up nothing
    assert np.array_equal(pushed(table, IDS), -ROWS)


def test_duplicates_in_a_push_are_summed_in_order_of_occurrence(
    deployment: Deployment, client: Client
) -> None:
    table = client.create_table(deployment.spec(dim=1, optimizer={"kind": "sgd", "lr": 1.0}, scale=0.0))
    table.push([4, 9, 4, 4], [[1e8], [5.0], [1.0], [-1e8]])  # (1e8 + 1) - 1e8 = 0 in float32
    table.push([8, 8, 8], [[1e8], [-1e8], [1.0]])
    assert pushed(table, np.array([4, 8, 9], np.uint64)).ravel().tolist() == [0.0, -1.0, -5.0]


def test_a_learning_rate_given_with_a_push_holds_for_it_alone(deployment: Deployment, client: Client) -> None:
    table = client.create_table(deployment.spec(dim=1, optimizer={"kind": "sgd", "lr": 1.0}, scale=0.0))
    table.push([1, 2], [[1.0], [1.0]], lr=0.25)
    table.push([2], [[1.0]])
    assert pushed(table, np.array([1, 2], np.uint64)).ravel().tolist() == [-0.25, -1.25]


def test_a_push_beyond_the_largest_frame_is_split_and_applied_whole(
    deployment: Deployment, client: Client
) -> None:
    spec = deployment.spec(dim=64, optimizer={"kind": "sgd", "lr": 1.0}, scale=0.0)
    table = client.create_table(spec)
    ids = np.arange(10_000, dtype=np.uint64)  # 2.6 MB over 2 shards, frames of 1 MiB
    table.push(ids, np.ones((len(ids), 64), np.float32))
    rows = table.get(ids, read_your_writes=True, on_missing="raise")
    assert (rows.vectors == -1.0).all()
    for shard in range(2):
        frames = [event for event in deployment.events(spec, shard) if isinstance(event, Gradient)]
        assert len(frames) == 2


@pytest.mark.parametrize("deployment", [LOCAL], indirect=True, scope="module")
def test_an_empty_push_changes_nothing(deployment: Deployment, client: Client) -> None:
    spec = deployment.spec()
    table = client.create_table(spec)
    table.push([], np.empty((0, 4), np.float32))
    table.delete([])
    table.upsert([], np.empty((0, 4), np.float32))
    assert len(table.get([], read_your_writes=True)) == 0
    assert all(deployment.position(spec, shard)[b"rows"] == b"0" for shard in range(2))
