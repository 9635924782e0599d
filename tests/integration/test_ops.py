"""Operations on whole tables: born once, changed by the rules, cut by barriers."""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest

from driftline import Client, Init, Policy, TableSpec, topics
from driftline.errors import ConfigError, TimedOutError
from driftline.frames.events import BARRIER, Gradient, Op, Origin, write_event
from driftline.frames.states import Marker
from driftline.ids import producer_id, shard_of
from driftline.log import Outgoing
from tests import oracle
from tests.integration.deployment import LOCAL, Deployment, Ids, bits, pushed

SGD = {"kind": "sgd", "lr": 1.0}
IDS: Ids = np.arange(20, dtype=np.uint64)
ONES = np.ones((20, 4), np.float32)


def test_a_snapshot_returns_when_every_shard_of_every_table_shows_its_op(
    deployment: Deployment, client: Client
) -> None:
    specs = [deployment.spec(shards=3), deployment.spec()]
    tables = [client.create_table(spec) for spec in specs]
    for table in tables:
        table.push(IDS, ONES)
    cut = client.snapshot(metadata={"loss": 0.25})
    for spec in specs:
        assert cut.tables[spec.name] == spec.shards
        for shard in range(spec.shards):
            assert int(deployment.position(spec, shard)[b"op"]) >= cut.op


def test_a_snapshot_covers_everything_pushed_before_it(deployment: Deployment, client: Client) -> None:
    spec = deployment.spec(optimizer=SGD, scale=0.0)
    table = client.create_table(spec)
    for _ in range(30):
        table.push(IDS, ONES)
    cut = client.snapshot()
    assert (table.get(IDS).vectors == -30).all()  # readable at once: the cut is committed
    for shard in range(spec.shards):
        events = deployment.events(spec, shard)
        at = next(n for n, event in enumerate(events) if is_barrier(event, cut.op))
        assert sum(isinstance(event, Gradient) for event in events[:at]) == 30


def test_a_barrier_s_marker_carries_the_position_that_the_log_gives_there(
    deployment: Deployment, client: Client
) -> None:
    spec = deployment.spec()
    table = client.create_table(spec)
    table.push(IDS, ONES)
    table.delete(IDS[:5])
    first = client.snapshot(kind="backup", metadata={"epoch": 3})
    table.push(IDS, ONES)
    second = client.snapshot()
    for shard in range(spec.shards):
        markers = [each for each in deployment.updates(spec, shard) if isinstance(each, Marker)]
        for cut in (first, second):
            marker = next(each for each in markers if each.kind == BARRIER and each.op == cut.op)
            assert named(marker) == judged(deployment, spec, shard, cut.op)
        body = dict(next(each.body for each in markers if each.op == first.op))
        sent = body.pop("gradients")
        assert isinstance(sent, dict)
        ((rows, squares, _),) = sent["producers"].values()
        assert rows == np.count_nonzero(shard_of(IDS, spec.shards) == shard)
        assert squares == rows * spec.dim
        assert body == {"kind": "backup", "metadata": {"epoch": 3}}


def test_the_states_before_a_barrier_s_marker_are_the_rows_at_the_barrier(
    deployment: Deployment, client: Client
) -> None:
    spec = deployment.spec()
    table = client.create_table(spec)
    table.push(IDS, ONES)
    expected = pushed(table, IDS)
    cut = client.snapshot()
    table.push(IDS, ONES)
    client.snapshot()
    rows: dict[int, bytes] = {}
    for shard in range(spec.shards):
        for update in deployment.updates(spec, shard):
            if isinstance(update, Marker) and update.op == cut.op:
                break
            if not isinstance(update, Marker):
                ids = update.ids.tolist()
                rows |= {each: row.tobytes() for each, row in zip(ids, update.rows, strict=True)}
    assert rows == {each: row.tobytes() for each, row in zip(IDS.tolist(), expected, strict=True)}


def test_creating_a_table_again_changes_nothing(deployment: Deployment, client: Client) -> None:
    spec = deployment.spec()
    table = client.create_table(spec)
    table.push(IDS, ONES)
    before = pushed(table, IDS)
    asked = len(deployment.records(topics.ops(deployment.group), 0))
    again = client.create_table(spec)
    assert len(deployment.records(topics.ops(deployment.group), 0)) == asked
    assert np.array_equal(bits(again.get(IDS).vectors), bits(before))


def test_two_clients_create_a_table_at_once(deployment: Deployment, client: Client) -> None:
    spec = deployment.spec(optimizer=SGD, scale=0.0)
    with deployment.client() as other, ThreadPoolExecutor(2) as threads:
        tables = list(threads.map(lambda each: each.create_table(spec), (client, other)))
        for table in tables:
            table.push(IDS, ONES)
        tables[1].wait_readable()
        assert (pushed(tables[0], IDS) == -2).all()


FORBIDDEN: Mapping[str, Mapping[str, object]] = {
    "dim": {"dim": 5},
    "shards": {"shards": 3},
    "init": {"init": Init(8, 0.1)},
    "optimizer kind": {"optimizer": {"kind": "adam"}},
}


@pytest.mark.parametrize(("what", "change"), FORBIDDEN.items(), ids=FORBIDDEN.keys())
@pytest.mark.parametrize("deployment", [LOCAL], indirect=True, scope="module")
def test_a_change_of_what_rows_rest_on_is_refused(
    deployment: Deployment, client: Client, what: str, change: Mapping[str, object]
) -> None:
    spec = deployment.spec()
    client.create_table(spec)
    with pytest.raises(ConfigError, match=f"{what} of table {spec.name} is fixed for its life"):
        client.create_table(replace(spec, **change))  # type: ignore[arg-type]
    assert client.table(spec.name).spec == spec


def test_a_changed_policy_holds_from_the_change_on(deployment: Deployment, client: Client) -> None:
    spec = replace(deployment.spec(dim=64, shards=1, optimizer=SGD, scale=0.0), frame_bytes=4096)
    frame = write_event(
        Gradient(spec.name, 0, Origin(producer_id(), 0, 1), IDS, np.ones((20, 64), np.float32))
    )
    assert len(frame) > 4096
    table = client.create_table(spec)
    deployment.append(topics.gradients(spec.name), 0, Outgoing(frame))
    strict = replace(spec, policy=Policy(max_frame=4096))
    table = client.create_table(strict)
    assert table.spec == strict
    again = write_event(
        Gradient(spec.name, 0, Origin(producer_id(), 0, 1), IDS, np.ones((20, 64), np.float32))
    )
    deployment.append(topics.gradients(spec.name), 0, Outgoing(again))
    table.push(IDS[:1], np.zeros((1, 64)))
    assert (pushed(table, IDS) == -1).all()  # the first one only
    assert [dict(each.headers)["dl-reason"] for each in deployment.dead_letters(spec, 0)] == [b"oversized"]
    assert deployment.audit(spec).ok


def test_a_changed_learning_rate_holds_from_the_change_on(deployment: Deployment, client: Client) -> None:
    spec = deployment.spec(optimizer=SGD, scale=0.0)
    table = client.create_table(spec)
    table.push(IDS, ONES)
    client.flush()
    table = client.create_table(replace(spec, optimizer={"kind": "sgd", "lr": 0.25}))
    table.push(IDS, ONES, step=1)
    assert (pushed(table, IDS) == -1.25).all()


def test_the_tables_of_the_group_are_listed(deployment: Deployment, client: Client) -> None:
    specs = [deployment.spec(), deployment.spec(dim=9, shards=1)]
    for spec in specs:
        client.create_table(spec)
    tables = client.tables()
    assert [tables[spec.name] for spec in specs] == specs


@pytest.mark.parametrize("own_deployment", [LOCAL], indirect=True)
def test_without_an_aggregator_an_op_says_so(own_deployment: Deployment) -> None:
    with own_deployment.client() as client, pytest.raises(TimedOutError, match="does an aggregator run for"):
        client.create_table(own_deployment.spec(), timeout=0.5)


def is_barrier(event: object, op: int) -> bool:
    return isinstance(event, Op) and event.kind == BARRIER and event.origin.seq == op


def judged(deployment: Deployment, spec: TableSpec, shard: int, op: int) -> dict[str, object]:
    """Return what an independent replay says of the position behind the barrier."""
    records = deployment.records(topics.gradients(spec.name), shard)
    kid = dict(records[0].headers)["dl-kid"].decode()
    judge = oracle.Shard(shard, keys={kid: deployment.keyring.current})
    for record, event in zip(records, deployment.events(spec, shard), strict=True):
        judge.apply(record)
        if is_barrier(event, op):
            break
    expected = judge.position()
    return {
        **{name: getattr(expected, name) for name in NUMBERS},
        "producers": {name: tuple(sent) for name, sent in expected.producers.items()},
    }


NUMBERS = ("next", "gen", "mv", "op", "ord", "rows", "epoch", "floor", "time")


def named(marker: Marker) -> dict[str, object]:
    sent = (marker.tensors[name].tolist() for name in ("pepoch", "pseq", "ptime"))
    names = [name.tobytes() for name in marker.tensors["pname"]]
    return {
        **{name: marker.position[name] for name in NUMBERS},
        "producers": dict(zip(names, zip(*sent, strict=True), strict=True)),
    }
