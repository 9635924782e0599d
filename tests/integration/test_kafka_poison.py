"""Records that no well-behaved client sends: each becomes a dead letter, and nothing else is held up."""

from __future__ import annotations

import asyncio
import json
import zlib
from pathlib import Path

import numpy as np
import pytest

from driftline import topics
from driftline.dlq import DeadLetters
from driftline.errors import FrameError
from driftline.frames.events import Gradient, Origin, write_event
from driftline.frames.unreadable import check_readable
from driftline.ids import producer_id, shard_of
from driftline.log import Outgoing, Record, open_log
from driftline.log.kafka.expanding import GZIP, LZ4, NONE, ZSTD
from driftline.log.kafka.records import varint
from driftline.shard.spec import TableSpec
from tests.integration.deployment import KAFKA, Deployment, Worker, bits, pushed
from tests.integration.ingesting import wait_applied
from tests.support.poison import BAD_NAME, append_raw, framed, raw_batch, raw_record

pytestmark = pytest.mark.kafka
IDS = np.arange(40, dtype=np.uint64)
MIB = 1 << 20


@pytest.fixture
def deployment(kafka_url: str, redis_url: str, tmp_path: Path) -> Deployment:
    return Deployment(KAFKA, kafka_url, redis_url, tmp_path)


def reasons(letters: list[Record]) -> list[str]:
    """Return the reason of each letter, once: a worker killed before its commit writes them again."""
    known = {letter.key: letter for letter in letters}
    return [dict(letter.headers)["dl-reason"].decode() for letter in known.values()]


def upsert(spec: TableSpec, row: int, value: float = 1.0) -> bytes:
    """Return the ingest message that sets a row of dimension 1."""
    return json.dumps({"table": spec.name, "type": "upsert", "id": row, "row": [value]}).encode()


@pytest.mark.parametrize("codec", [NONE, LZ4, ZSTD])
def test_a_gradient_with_a_header_name_that_is_not_text_is_refused_by_the_shard_and_by_the_audit(
    deployment: Deployment, codec: int
) -> None:
    spec = deployment.spec()
    ids = IDS[shard_of(IDS, spec.shards) == 0]
    forged = write_event(
        Gradient(spec.name, 0, Origin(producer_id("x"), 0, 1), ids, np.ones((len(ids), spec.dim), np.float32))
    )
    good = raw_record(0, b"no frame either")
    poison = raw_record(1, forged, [(b"a", b"1"), (BAD_NAME, b"2")])
    with deployment.worker() as worker, deployment.client() as client:
        table = client.create_table(spec)
        for _ in range(3):
            table.push(IDS, np.ones((len(IDS), spec.dim), np.float32))
            append_raw(deployment.log_url, topics.gradients(spec.name), 0, raw_batch([good, poison], codec))
        rows = pushed(table, IDS)
        worker.restart()
        table.push(IDS, np.zeros((len(IDS), spec.dim), np.float32))
        assert np.array_equal(bits(pushed(table, IDS)), bits(rows))
        client.snapshot(timeout=60)
        assert worker.process.alive
    letters = deployment.dead_letters(spec, 0)
    assert reasons(letters) == ["undecodable", "bad_header"] * 3
    assert letters[1].value == forged
    assert deployment.audit(spec).ok


def test_an_op_with_a_header_name_that_is_not_text_is_refused_and_the_next_is_carried_out(
    deployment: Deployment,
) -> None:
    with deployment.worker() as worker, deployment.client() as client:
        client.create_table(deployment.spec())
        poison = raw_batch([raw_record(0, b"?", [(BAD_NAME, b"")])])
        append_raw(deployment.log_url, topics.ops(deployment.group), 0, poison)
        client.snapshot(timeout=60)
        client.create_table(deployment.spec())
        worker.restart()  # its catalogue reads the ops log from the begin
        client.create_table(deployment.spec())
    assert reasons(deployment.records(topics.refused_ops(deployment.group), 0)) == ["bad_header"]


def test_an_ingest_message_with_a_header_name_that_is_not_text_is_refused_and_the_next_forwarded(
    deployment: Deployment,
) -> None:
    spec, topic = deployment.spec(dim=1), topics.ingest(deployment.group)
    worse = upsert(spec, 7, 2.0)
    with deployment.worker() as worker, deployment.client() as client:
        table = client.create_table(spec)
        for codec in (NONE, GZIP):
            records = [raw_record(0, upsert(spec, 7)), raw_record(1, worse, [(BAD_NAME, b"")])]
            append_raw(deployment.log_url, topic, 0, raw_batch(records, codec))
        wait_applied(deployment, client)
        worker.restart()
        deployment.append(topic, 0, Outgoing(upsert(spec, 8)))
        wait_applied(deployment, client)
        assert table.get([7, 8]).vectors.tolist() == [[1.0], [1.0]]
    refused = deployment.records(topics.refused_ingest(deployment.group), 0)
    assert reasons(refused) == ["bad_header"] * 2
    assert refused[0].value == worse


def test_readers_of_updates_and_dead_letters_go_on_behind_such_a_record(deployment: Deployment) -> None:
    spec = deployment.spec()
    poison = raw_batch([raw_record(0, b"?", [(BAD_NAME, b"")])])
    with deployment.worker(), deployment.client() as client:
        table = client.create_table(spec)
        client.snapshot(timeout=60)
        for topic in (topics.updates(spec.name), topics.dead_letters(spec.name)):
            append_raw(deployment.log_url, topic, 0, poison)
        deployment.append(topics.gradients(spec.name), 0, Outgoing(b"no frame"))
        table.push(IDS, np.ones((len(IDS), spec.dim), np.float32))
        pushed(table, IDS)
        client.snapshot(timeout=60)
    assert len(_unreadable(deployment.records(topics.updates(spec.name), 0))) == 1
    assert deployment.records(topics.updates(spec.name), 0)[-1].value

    async def listed() -> list[str]:
        async with open_log(deployment.log_url) as log:
            found = await (await DeadLetters.of(log, spec.name)).letters()
            return [letter.reason for letter in found]

    assert asyncio.run(listed()) == ["undecodable"]


def _unreadable(records: list[Record]) -> list[Record]:
    found = []
    for record in records:
        try:
            check_readable(record.headers)
        except FrameError:
            found.append(record)
    return found


def test_a_batch_that_expands_to_hundreds_of_mebibytes_is_refused_and_costs_no_such_memory(
    deployment: Deployment,
) -> None:
    spec, topic = deployment.spec(dim=1), topics.ingest(deployment.group)
    bomb = _bomb(400)
    with deployment.worker() as worker, deployment.client() as client:
        table = client.create_table(spec)
        deployment.append(topic, 0, Outgoing(upsert(spec, 7)))
        wait_applied(deployment, client)
        before = _peak_mib(worker)
        for _ in range(3):
            append_raw(deployment.log_url, topic, 0, bomb)
        deployment.append(topic, 0, Outgoing(upsert(spec, 8)))
        wait_applied(deployment, client)
        assert table.get([7, 8]).vectors.tolist() == [[1.0], [1.0]]
        assert _peak_mib(worker) - before < 200
    refused = deployment.records(topics.refused_ingest(deployment.group), 0)
    assert reasons(refused) == ["oversized"] * 3
    assert refused[0].value == bomb[61:]


def _bomb(mebibytes: int) -> bytes:
    """Return a batch of one record of that size, made without ever holding it."""
    size = mebibytes * MIB
    head = b"\0\0\0" + varint(-1) + varint(size)
    packer = zlib.compressobj(wbits=31)
    parts = [packer.compress(varint(len(head) + size + 1) + head)]
    parts += [packer.compress(bytes(MIB)) for _ in range(mebibytes)]
    parts += [packer.compress(varint(0)), packer.flush()]
    return framed(b"".join(parts), 1, GZIP)


def _peak_mib(worker: Worker) -> float:
    status = Path(f"/proc/{worker.process.pid}/status").read_text()
    (line,) = [line for line in status.splitlines() if line.startswith("VmHWM")]
    return int(line.split()[1]) / 1024
