"""A full store, one of another release, a versioner that lost its memory: what stays, what is said."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from driftline import Client, TableSpec
from driftline.control import BackupsHeld
from driftline.errors import StoreFormatError
from driftline.servers.local import free_ports
from driftline.versions import fsck, group_url, head, open_store
from driftline.versions.documents import write_plain
from driftline.versions.repository import FORMAT
from tests.chaos.kit.filesystem import MountError, SmallDisk, small_disk
from tests.integration.deployment import Deployment, Ids, bits
from tests.integration.versioning import (
    VersionerProcess,
    events_of,
    expected_at,
    readiness,
    repository_of,
    stored_rows,
)
from tests.support.waiting import until

DISK = 4 << 20
IDS: Ids = np.arange(200, dtype=np.uint64)


def train(client: Client, spec: TableSpec, seed: int) -> None:
    table = client.table(spec.name)
    table.push(IDS, np.random.default_rng(seed).normal(size=(len(IDS), spec.dim)).astype(np.float32))


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[SmallDisk]:
    try:
        with small_disk(tmp_path / "disk", DISK) as one:
            yield one
    except MountError as error:
        pytest.skip(f"this user may not mount a small file system: {error}")


def test_a_full_disk_under_the_store_fails_the_commit_and_leaves_the_head_until_there_is_room(
    deployment: Deployment, client: Client, disk: SmallDisk
) -> None:
    spec, (port,) = deployment.spec(), free_ports(1)
    url = f"file://{disk.path}/versions"
    client.create_table(spec)
    more = {"DRIFTLINE_STORE_URL": url, "DRIFTLINE_HTTP_PORT": str(port)}
    with VersionerProcess(deployment, "full-disk", more):
        train(client, spec, 1)
        first = client.version_of(client.snapshot())
        until(lambda: readiness(port)[0] == 200, "it is ready", seconds=30)
        disk.fill()
        train(client, spec, 2)
        cut = client.snapshot()  # every shard passes it: training goes on
        until(lambda: readiness(port)[0] == 503, "it is not ready", seconds=30)
        _, said = readiness(port)
        assert f"op {cut.op}: " in said
        assert "No space left on device" in said
        repository = repository_of(deployment, url)
        newest = head(repository, "main")
        assert newest is not None
        assert newest.version == first.version
        assert fsck(repository) == []
        disk.free()
        second = client.version_of(cut)
        until(lambda: readiness(port)[0] == 200, "it is ready again", seconds=30)
    assert second.parents == (first.version,)
    repository = repository_of(deployment, url)
    for told in (first, second):
        rows = stored_rows(repository, repository.manifest(told.version), spec.name)
        assert rows == expected_at(deployment, spec, told.op)
    assert fsck(repository) == []


def test_a_store_of_another_format_is_refused_with_a_way_out(own_deployment: Deployment) -> None:
    store = open_store(group_url(own_deployment.store_url, own_deployment.group, Path()))
    newer = write_plain({"format": FORMAT + 1, "group": own_deployment.group, "kind": "versions"})
    store.create("format.json", newer)
    with VersionerProcess(own_deployment, "older", {}) as versioner:
        until(lambda: not versioner.process.alive, "it gives up", seconds=30)
        said = versioner.log
    assert f"format {FORMAT + 1}; this release reads versions of format {FORMAT}" in said
    assert "upgrade, or use another folder" in said
    with pytest.raises(StoreFormatError, match="upgrade, or use another folder"):
        _ = own_deployment.repository
    assert store.get("format.json") == newer


def test_backups_are_there_again_after_the_versioner_was_killed(
    deployment: Deployment, client: Client
) -> None:
    spec = deployment.spec()
    table = client.create_table(spec)
    cuts, rows = [], []
    with VersionerProcess(deployment, "forgetful", {}) as versioner:
        train(client, spec, 1)
        client.version_of(client.snapshot())
        for seed in (2, 3):
            train(client, spec, seed)
            cuts.append(client.snapshot(kind="backup").op)
            rows.append(table.get(IDS).vectors.copy())
        held = [cuts[0], cuts[1]]
        until(lambda: ops_held(deployment) == held, "it holds both", seconds=30)
        train(client, spec, 4)
        told = len(statements(deployment))
        versioner.kill()
        versioner.start()
        until(lambda: len(statements(deployment)) > told, "the next one speaks", seconds=60)
        until(lambda: ops_held(deployment) == held, "it holds both, too", seconds=60)
        assert len({each.instance for each in statements(deployment)}) >= 2
        for cut, then in reversed(list(zip(cuts, rows, strict=True))):
            done = client.roll_back_to_backup(spec.name, IDS.tolist(), cut)
            assert done.rows == len(IDS)
            assert np.array_equal(bits(table.get(IDS).vectors), bits(then))


def statements(deployment: Deployment) -> list[BackupsHeld]:
    return [each for each in events_of(deployment) if isinstance(each, BackupsHeld)]


def ops_held(deployment: Deployment) -> list[int]:
    return sorted(each.op for each in statements(deployment)[-1].backups)
