"""Live tables and versions that were merged, compacted or blurred: what can be trained on, and what not."""

from __future__ import annotations

import numpy as np
import pytest

from driftline import Client, Table
from driftline.errors import LossyVersionError
from driftline.versions import (
    Manifest,
    Resolver,
    TableReader,
    compact,
    create_branch,
    fsck,
    merge,
    remove_branch,
)
from driftline.versions.rewriting import Limits
from tests.integration.deployment import LOCAL, Deployment, Ids
from tests.integration.versions import cut_version

pytestmark = pytest.mark.parametrize("deployment", [LOCAL], indirect=True, scope="module")
IDS: Ids = np.arange(60, dtype=np.uint64)


def train(table: Table, ids: Ids, seed: int) -> None:
    gradients = np.random.default_rng(seed).normal(size=(len(ids), table.spec.dim))
    table.push(ids, gradients.astype(np.float32))
    table.wait_readable()


def stored(deployment: Deployment, manifest: Manifest, table: Table, ids: Ids) -> bytes:
    reader = TableReader(deployment.repository.cache, manifest, table.spec.name)
    return reader.rows(ids).rows.rows.tobytes()


def test_training_goes_on_exactly_from_a_merge_that_was_compacted(
    deployment: Deployment, client: Client
) -> None:
    spec = deployment.spec(shards=2, optimizer={"kind": "adam", "lr": 0.01})
    table = client.create_table(spec)
    train(table, IDS, 1)
    first = cut_version(deployment, client, [spec])
    create_branch(deployment.repository, "side", first.version)
    train(table, IDS[:20], 2)
    second = cut_version(deployment, client, [spec])
    client.restore(first.version, mode="checkout", branch="side")
    born = np.arange(100, 110, dtype=np.uint64)
    train(table, np.concatenate([IDS[15:30], born]), 3)
    side = cut_version(deployment, client, [spec], "side")

    merged = merge(deployment.repository, side.version, resolver=Resolver.TASK)
    manifest = merged.manifest
    assert manifest is not None
    assert merged.ancestor == first.version
    assert merged.tables[0].changed.tolist() == list(range(15, 20))
    compact(deployment.repository, limits=Limits(segments=1))
    manifest = deployment.repository.manifest(manifest.version)
    client.restore(manifest.version, mode="checkout", branch="main")
    every = np.concatenate([IDS, born])
    assert table.get(every).vectors.tobytes() == stored(deployment, manifest, table, every)
    assert stored(deployment, manifest, table, IDS[:15]) == stored(deployment, second, table, IDS[:15])
    assert stored(deployment, manifest, table, born) == stored(deployment, side, table, born)

    more = np.arange(200, 210, dtype=np.uint64)
    train(table, np.concatenate([IDS[:5], more]), 4)
    last = cut_version(deployment, client, [spec])
    assert last.parents == (manifest.version,)
    every = np.concatenate([every, more])
    assert table.get(every).vectors.tobytes() == stored(deployment, last, table, every)
    # `cut_version` begins at the first record of the log each time: those are the gaps
    assert [each for each in fsck(deployment.repository) if each.code != "gap"] == []
    audit = deployment.audit(spec)
    assert audit.ok, [difference for shard in audit.shards for difference in shard.differences]

    remove_branch(deployment.repository, "side")
    before = table.get(every).vectors.tobytes()
    compact(deployment.repository, {second.version: "int8"})
    with pytest.raises(LossyVersionError, match=f"version {second.version} is stored in tier int8"):
        client.restore(second.version)
    with pytest.raises(LossyVersionError, match="a restore of rows"):
        client.restore_rows(spec.name, IDS[:3], second.version)
    with pytest.raises(LossyVersionError, match="a deployment"):
        client.deploy(second.version)
    assert table.get(every).vectors.tobytes() == before
