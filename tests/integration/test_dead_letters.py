"""Frames that a careless producer writes straight to the log: put aside, with reason and origin."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping

import numpy as np
import pytest

from driftline import Client, Policy, TableSpec, topics
from driftline.frames.events import BARRIER, SPEC, Delete, Gradient, Op, Origin, Upsert, write_event
from driftline.frames.headers import Keyring
from driftline.ids import OPS_PRODUCER, producer_id, shard_of
from driftline.log import Outgoing, Record
from tests.integration.deployment import Deployment, Ids, pushed

SHARD = 1
SOME: Ids = np.arange(40, dtype=np.uint64)
MINE = SOME[shard_of(SOME, 2) == SHARD][:4]
FOREIGN = SOME[shard_of(SOME, 2) != SHARD][:4]
GRADS = np.ones((4, 4), np.float32)
NAN = np.full((4, 4), np.nan, np.float32)
CARELESS = producer_id("careless")


_sent = itertools.count(1)


def origin() -> Origin:
    return Origin(CARELESS, 0, next(_sent))


def gradient(spec: TableSpec, **changes: object) -> bytes:
    values: dict[str, object] = {
        "table": spec.name,
        "shard": SHARD,
        "origin": origin(),
        "ids": MINE,
        "grads": GRADS,
    }
    return write_event(Gradient(**(values | changes)))  # type: ignore[arg-type]


def forged(spec: TableSpec) -> Outgoing:
    """A barrier that claims to be the router's, signed with a key of another deployment."""
    barrier = Op(BARRIER, spec.name, SHARD, Origin(OPS_PRODUCER, 0, 1 << 40), {"kind": "version"})
    value = write_event(barrier, more={"group": spec.group})
    return Outgoing(value, None, Keyring(b"k" * 32).sign(value))


def oversized(spec: TableSpec) -> bytes:
    many = np.arange(4000, dtype=np.uint64)
    many = many[shard_of(many, 2) == SHARD]
    frame = gradient(spec, ids=many, grads=np.ones((len(many), 4), np.float32))
    assert len(frame) > spec.policy.max_frame
    return frame


CARELESSLY: Mapping[str, tuple[str, Callable[[TableSpec], bytes | Outgoing]]] = {
    "gradients of another dimension": ("wrong_dim", lambda s: gradient(s, grads=GRADS[:, :3])),
    "ids out of order": ("unsorted_ids", lambda s: gradient(s, ids=MINE[::-1].copy())),
    "an id twice": ("duplicate_ids", lambda s: gradient(s, ids=np.sort(MINE[[0, 0, 1, 2]]))),
    "ids of another shard": ("foreign_ids", lambda s: gradient(s, ids=FOREIGN)),
    "another table's name": ("unknown_table", lambda s: gradient(s, table="somebody-else")),
    "another shard's number": ("wrong_shard", lambda s: gradient(s, shard=0)),
    "an upsert with NaN": (
        "non_finite",
        lambda s: write_event(Upsert(s.name, SHARD, origin(), MINE, NAN)),
    ),
    "an upsert with state of another size": (
        "wrong_dim",
        lambda s: write_event(Upsert(s.name, SHARD, origin(), MINE, GRADS, GRADS)),
    ),
    "a delete with ids out of order": (
        "unsorted_ids",
        lambda s: write_event(Delete(s.name, SHARD, origin(), MINE[::-1].copy())),
    ),
    "a frame beyond the table's limit": ("oversized", oversized),
    "junk": ("undecodable", lambda s: b"\x10\0\0\0\0\0\0\0not JSON at all."),
    "nothing": ("truncated", lambda s: b""),
    "half a frame": ("truncated", lambda s: gradient(s)[:-7]),
    "a frame of unknown type": ("unknown_type", lambda s: gradient(s).replace(b'"gradient"', b'"gradiemt"')),
    "an op that nobody signed": (
        "forged",
        lambda s: write_event(Op(SPEC, s.name, SHARD, Origin(OPS_PRODUCER, 0, 1 << 40), s.to_json())),
    ),
    "an op signed with another key": ("forged", forged),
    "gradients in the router's name": ("forged", lambda s: gradient(s, origin=Origin(OPS_PRODUCER, 0, 9))),
}


@pytest.fixture(scope="module")
def spec(deployment: Deployment, worker: object) -> TableSpec:
    """One table for all: each careless frame is followed by good ones."""
    spec = deployment.spec(optimizer={"kind": "sgd", "lr": 1.0}, scale=0.0, policy=Policy(max_frame=8192))
    with deployment.client() as client:
        client.create_table(spec)
    return spec


def letter_of(deployment: Deployment, spec: TableSpec, offset: int) -> Record:
    (letter,) = (
        each for each in deployment.dead_letters(spec, SHARD) if each.key == b"%d:%d" % (SHARD, offset)
    )
    return letter


@pytest.mark.parametrize(("reason", "make"), CARELESSLY.values(), ids=CARELESSLY.keys())
def test_is_put_aside_with_reason_and_origin_and_the_shard_goes_on(
    deployment: Deployment,
    client: Client,
    spec: TableSpec,
    reason: str,
    make: Callable[[TableSpec], bytes | Outgoing],
) -> None:
    table = client.table(spec.name)
    before = pushed(table, MINE)
    frame = make(spec)
    sent = frame if isinstance(frame, Outgoing) else Outgoing(frame, None, (("source", b"careless"),))
    offset = deployment.append(topics.gradients(spec.name), SHARD, sent)

    table.push(MINE, GRADS)
    assert np.array_equal(pushed(table, MINE), before - 1)

    letter = letter_of(deployment, spec, offset)
    headers = dict(letter.headers)
    assert headers["dl-reason"] == reason.encode()
    assert headers["dl-message"].startswith(reason.encode())
    assert (headers["dl-partition"], headers["dl-offset"]) == (b"%d" % SHARD, b"%d" % offset)
    assert int(headers["dl-timestamp"]) > 0
    assert letter.value == sent.value
    for name, value in sent.headers:
        assert headers[f"dl-original-{name}"] == value


def test_a_gradient_that_is_not_finite_leaves_its_own_row_alone_out(
    deployment: Deployment, client: Client, spec: TableSpec
) -> None:
    table = client.table(spec.name)
    before = pushed(table, MINE)
    grads = GRADS.copy()
    grads[2, 1] = np.inf
    frame = gradient(spec, grads=grads, origin=Origin(producer_id(), 0, 1))
    deployment.append(topics.gradients(spec.name), SHARD, Outgoing(frame))
    table.push(MINE, GRADS)
    assert np.array_equal(before - pushed(table, MINE), GRADS * np.array([[2], [2], [1], [2]], np.float32))


def test_the_audit_refuses_what_the_aggregator_refused(
    deployment: Deployment, client: Client, spec: TableSpec
) -> None:
    for _, make in CARELESSLY.values():
        frame = make(spec)
        deployment.append(
            topics.gradients(spec.name), SHARD, frame if isinstance(frame, Outgoing) else Outgoing(frame)
        )
    table = client.table(spec.name)
    table.push(MINE, GRADS)
    table.wait_readable()
    assert deployment.audit(spec).ok


def test_an_op_that_nobody_signed_is_put_with_the_refused_ops(
    deployment: Deployment, client: Client, spec: TableSpec
) -> None:
    unsigned = write_event(Op(BARRIER, deployment.group, 0, Origin(CARELESS, 0, 0), {"kind": "version"}))
    deployment.append(topics.ops(deployment.group), 0, Outgoing(unsigned))
    client.snapshot()  # the router goes on
    letters = deployment.records(topics.refused_ops(deployment.group), 0)
    assert [dict(each.headers)["dl-reason"] for each in letters if each.value == unsigned] == [b"forged"]
