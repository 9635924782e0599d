"""Restores on real servers: exact, all tables of a group, and never in a reader's way."""

from __future__ import annotations

import os
import threading
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
import redis

from driftline import Client, RolledBack, Table, TableSpec, topics
from driftline.errors import NotDeployedError, UnknownVersionError, VersionUnloadableError
from driftline.ids import shard_of
from driftline.rows.deployed import values_key
from driftline.rows.layout import ShardKeys
from driftline.shard.machine import Shard
from driftline.versions import TableReader
from driftline.versions.source import StoredVersions
from tests.integration.deployment import LOCAL, Deployment, Ids, Worker, bits, pushed
from tests.integration.versions import cut_version
from tests.support.samples import rows_of
from tests.support.waiting import until

IDS: Ids = np.arange(120, dtype=np.uint64)
READS = int(os.environ.get("DRIFTLINE_TESTS_READS", "2000"))
Image = tuple[Mapping[bytes, bytes], Mapping[bytes, bytes]]


def image(deployment: Deployment, spec: TableSpec) -> list[Image]:
    """Return the rows of each shard as Redis holds them: bits, LSNs, ordinals, optimizer state."""
    found: list[Image] = []
    for shard in range(spec.shards):
        keys = ShardKeys.of(spec.name, shard)
        with redis.Redis.from_url(deployment.home(spec, shard)) as server:
            found.append((server.hgetall(keys.values), server.hgetall(keys.state)))
    return found


def train(table: Table, steps: int, seed: int = 1) -> None:
    rng = np.random.default_rng(seed)
    for _ in range(steps):
        ids = np.unique(rng.choice(IDS, 30))
        table.get(ids)
        table.push(ids, rng.normal(size=(len(ids), table.spec.dim)).astype(np.float32))
    table.delete(rng.choice(IDS, 3))
    table.flush()


def leftovers(deployment: Deployment, spec: TableSpec) -> list[bytes]:
    with redis.Redis.from_url(deployment.home(spec, 0)) as server:
        return [key for key in server.scan_iter(f"dl:{{{spec.name}:*") if b".next." in key]


ADAM = {"kind": "adam", "lr": 0.01}


def test_a_rollback_is_exact_and_the_audit_replays_over_it(deployment: Deployment, client: Client) -> None:
    specs = [deployment.spec(shards=3), deployment.spec(optimizer=ADAM)]
    tables = [client.create_table(spec) for spec in specs]
    for table in tables:
        train(table, 20)
    version = cut_version(deployment, client, specs)
    at_the_barrier = [image(deployment, spec) for spec in specs]
    for table in tables:
        train(table, 20, seed=2)
        table.wait_readable()
    assert [image(deployment, spec) for spec in specs] != at_the_barrier
    restored = client.restore(version.version)
    assert [image(deployment, spec) for spec in specs] == at_the_barrier
    assert {restored.epochs[spec.name] for spec in specs} == {1}
    assert set(restored.attachments) == {"dense"}
    for spec in specs:
        assert not leftovers(deployment, spec)
    for table in tables:  # and training goes on from there
        train(table, 5, seed=3)
        table.wait_readable()
    again = cut_version(deployment, client, specs)  # whose rows lie on those restored
    trained_on = [image(deployment, spec) for spec in specs]
    for table in tables:
        train(table, 5, seed=4)
    client.restore(again.version, mode="checkout", branch="exp", scenario="W")
    assert [image(deployment, spec) for spec in specs] == trained_on
    for spec in specs:
        audit = deployment.audit(spec)
        assert audit.ok, [difference for shard in audit.shards for difference in shard.differences]


def test_a_version_and_the_log_from_there_give_the_first_run_again(
    deployment: Deployment, client: Client
) -> None:
    spec = deployment.spec(optimizer=ADAM)
    table = client.create_table(spec)
    train(table, 15)
    version = cut_version(deployment, client, [spec])
    train(table, 15, seed=2)
    table.wait_readable()
    for shard in range(spec.shards):
        sandbox = StoredVersions(lambda: deployment.repository).replayed(version.version, spec.name, shard)
        machine = Shard(spec.name, shard, deployment.keyring, sandbox.position)
        for block in sandbox.blocks():
            machine.cache.enter(block)
        rest = deployment.records(topics.gradients(spec.name), shard)[sandbox.position.next :]
        while rest:
            plan = machine.screen(rest)
            machine.apply(plan, None)
            if plan.op is not None:
                machine.apply_op(plan.op)
            rest = rest[plan.consumed :]
        stored, states = image(deployment, spec)[shard]
        rows = {
            int(key).to_bytes(8, "little"): (row, state, at, ordinal)
            for key, (row, state, at, ordinal) in rows_of(machine).items()
        }
        assert rows.keys() == stored.keys()
        for key, (row, state, at, ordinal) in rows.items():
            assert stored[key] == row + at.to_bytes(8, "little") + ordinal.to_bytes(4, "little")
            assert states[key] == state


def test_gradients_made_from_rows_of_before_are_dropped(deployment: Deployment, client: Client) -> None:
    spec = deployment.spec(optimizer={"kind": "sgd", "lr": 1.0}, scale=0.0)
    table = client.create_table(spec)
    table.push(IDS, np.ones((len(IDS), 4), np.float32))
    version = cut_version(deployment, client, [spec])
    stale = table.get(IDS).read
    client.restore(version.version)
    table.push(IDS, np.ones((len(IDS), 4), np.float32), read=stale)
    assert (pushed(table, IDS) == -1).all()
    table.push(IDS, np.ones((len(IDS), 4), np.float32))
    assert (pushed(table, IDS) == -2).all()


def test_a_table_that_is_younger_than_the_version_is_left_alone(
    deployment: Deployment, client: Client
) -> None:
    old, young = deployment.spec(), deployment.spec()
    first = client.create_table(old)
    train(first, 3)
    version = cut_version(deployment, client, [old])
    second = client.create_table(young)
    train(second, 3)
    second.wait_readable()
    before = image(deployment, young)
    client.restore(version.version)
    assert image(deployment, young) == before
    assert deployment.position(young, 0)[b"epoch"] == b"0"


def test_rows_go_back_one_by_one(deployment: Deployment, client: Client) -> None:
    spec = deployment.spec(optimizer=ADAM)
    table = client.create_table(spec)
    table.push(IDS[:50], np.ones((50, 4), np.float32))
    before = pushed(table, IDS[:50])
    version = cut_version(deployment, client, [spec])
    table.push(IDS, np.ones((len(IDS), 4), np.float32))
    after = pushed(table, IDS)
    done = client.restore_rows(spec.name, [*range(10), 70], version.version)
    assert (done.rows, done.absent.tolist()) == (10, [70])
    now = pushed(table, IDS)
    assert np.array_equal(bits(now[:10]), bits(before[:10]))
    assert np.array_equal(bits(now[10:]), bits(after[10:]))
    found = TableReader(deployment.repository.cache, version, spec.name).rows(IDS[:10])
    with redis.Redis.from_url(deployment.home(spec, 0)) as server:
        for at, row in enumerate(range(10)):
            stored = [
                server.hget(ShardKeys.of(spec.name, n).state, row.to_bytes(8, "little"))
                for n in range(spec.shards)
            ]
            assert found.rows.state[at].tobytes() in stored


def test_a_version_that_cannot_be_loaded_changes_nothing_and_says_which_object(
    deployment: Deployment, client: Client, worker: Worker
) -> None:
    spec = deployment.spec()
    table = client.create_table(spec)
    train(table, 3)
    version = cut_version(deployment, client, [spec])
    train(table, 3)
    table.wait_readable()
    before = image(deployment, spec)
    root = Path(deployment.store_url.removeprefix("file://")) / deployment.group
    segment = version.tables[spec.name].parts[1].segments[0].ref.key
    away = root / f"{segment}.away"
    (root / segment).rename(away)
    with pytest.raises(VersionUnloadableError, match=segment):
        client.restore(version.version)
    assert image(deployment, spec) == before
    table.push(IDS, np.ones((len(IDS), 4), np.float32))  # training goes on
    table.wait_readable()
    away.rename(root / segment)
    client.restore(version.version)
    with pytest.raises(UnknownVersionError):
        client.restore("V-N-77.0")


def test_clients_hear_of_a_rollback_by_their_reads(deployment: Deployment, client: Client) -> None:
    spec = deployment.spec()
    table = client.create_table(spec)
    train(table, 3)
    version = cut_version(deployment, client, [spec])
    heard: list[RolledBack] = []
    with deployment.client() as other:
        other.on_rolled_back(heard.append)
        reader = other.table(spec.name)
        reader.get(IDS)
        client.restore(version.version)
        reader.get(IDS)
        reader.get(IDS)
        until(lambda: bool(heard), "the reader is told")
        (notice,) = heard
        assert (notice.table, notice.version, notice.epoch, notice.mode) == (
            spec.name,
            version.version,
            1,
            "rollback",
        )
        weights = deployment.repository.read_attachment(notice.attachments["dense"])
        assert weights == b"weights of op %d" % version.op


def test_a_deployed_version_is_read_beside_the_live_rows(deployment: Deployment, client: Client) -> None:
    spec = deployment.spec(optimizer=ADAM)
    table = client.create_table(spec)
    train(table, 5)
    frozen = pushed(table, IDS)
    version = cut_version(deployment, client, [spec]).version
    with pytest.raises(NotDeployedError, match=f"driftline deploy {version}"):
        table.get(IDS, version=version)
    client.deploy(version)
    train(table, 5, seed=2)
    live = pushed(table, IDS)
    assert not np.array_equal(bits(live), bits(frozen))
    pinned = table.get(IDS, version=version)
    assert np.array_equal(bits(pinned.vectors), bits(frozen))
    with redis.Redis.from_url(deployment.home(spec, 0)) as server:  # a Redis that lost it is mended
        server.delete(values_key(ShardKeys.of(spec.name, 0), version))

    def mended() -> bool:
        try:
            return np.array_equal(bits(table.get(IDS, version=version).vectors), bits(frozen))
        except NotDeployedError:
            return False

    until(mended, "the deployment is loaded again", seconds=20)
    client.undeploy(version)
    with pytest.raises(NotDeployedError):
        table.get(IDS, version=version)


@pytest.mark.parametrize("deployment", [LOCAL], indirect=True, scope="module")
def test_readers_during_rollbacks_never_see_two_versions_of_a_shard(
    deployment: Deployment, client: Client
) -> None:
    """All rows are 1 in one version and 2 in the next; `DRIFTLINE_TESTS_READS` makes it longer."""
    spec = deployment.spec(shards=4, optimizer={"kind": "sgd", "lr": 1.0})
    table = client.create_table(spec)
    table.upsert(IDS, np.full((len(IDS), 4), 1, np.float32))
    one = cut_version(deployment, client, [spec])
    table.upsert(IDS, np.full((len(IDS), 4), 2, np.float32))
    two = cut_version(deployment, client, [spec])
    done = threading.Event()
    read, errors = [0, 0], list[BaseException]()

    def reader(consistent: str | None, slot: int) -> None:
        try:
            with deployment.client() as mine:
                handle = mine.table(spec.name)
                rng = np.random.default_rng(slot)
                home = handle_homes(handle)
                while not done.is_set():
                    ids = rng.choice(IDS, 24)
                    rows = handle.get(ids, on_missing="raise", consistent=consistent).vectors[:, 0]
                    if consistent:
                        assert len(set(rows.tolist())) == 1, "rows of two versions"
                    for shard in range(spec.shards):
                        mine_rows = rows[home[ids.astype(np.intp)] == shard]
                        assert len(set(mine_rows.tolist())) <= 1, "rows of two versions within a shard"
                    read[slot] += 1
        except BaseException as error:  # noqa: BLE001 - raised where the test can see it
            errors.append(error)
            done.set()

    threads = [threading.Thread(target=reader, args=(kind, n)) for n, kind in enumerate((None, "epoch"))]
    for thread in threads:
        thread.start()
    rollbacks = 0
    while (min(read) < READS or rollbacks < 6) and not done.is_set():
        client.restore((one, two)[rollbacks % 2].version)
        rollbacks += 1
    done.set()
    for thread in threads:
        thread.join()
    print(f"{sum(read)} reads of 24 rows ({read[1]} of one epoch) during {rollbacks} rollbacks")
    assert not errors, errors[0]


def handle_homes(table: Table) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    return np.asarray(shard_of(IDS, table.spec.shards), np.int64)
