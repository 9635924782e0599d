"""A version is committed exactly once, whatever kills a versioner and whenever; two share the shards."""

from __future__ import annotations

import itertools
import os
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from driftline import Client, TableSpec
from driftline.control import VersionCommitted
from driftline.versions import Repository, fsck, head, line
from tests.integration.deployment import LOCAL, Deployment, bits
from tests.integration.versioning import (
    VersionerProcess,
    events_of,
    expected_at,
    repository_of,
    stored_rows,
)
from tests.support.dying_versioner import MOMENTS
from tests.support.waiting import until

DYING = "tests.support.dying_versioner"
GATED = {"DRIFTLINE_VERSION_GATES": "figure:loss:lower:9"}  # so that there is a ruling to die at
STEPS = 12  # changes to the store from the first segment to the last deletion; a few more are harmless
EVERY_STEP = bool(os.environ.get("DRIFTLINE_TESTS_EVERY_STEP"))  # on the broker too
SHARED = "assigned 2 partitions"
_names = itertools.count()


@pytest.fixture(scope="module")
def specs(deployment: Deployment) -> list[TableSpec]:
    return [deployment.spec(), deployment.spec(dim=3)]


@pytest.fixture
def tables(client: Client, specs: list[TableSpec]) -> Client:
    for spec in specs:
        client.create_table(spec)
    return client


def train(client: Client, specs: list[TableSpec], seed: int) -> None:
    rng = np.random.default_rng(seed)
    for spec in specs:
        ids = np.unique(rng.integers(0, 300, 100, dtype=np.uint64))
        table = client.table(spec.name)
        table.push(ids, rng.normal(size=(len(ids), spec.dim)).astype(np.float32))
        table.delete(ids[:10])


def check(deployment: Deployment, specs: list[TableSpec], told: VersionCommitted) -> Repository:
    """See that the version holds what the log says, and that each barrier became one version, told once."""
    repository = repository_of(deployment)
    manifest = repository.manifest(told.version)
    for spec in specs:
        assert stored_rows(repository, manifest, spec.name) == expected_at(deployment, spec, told.op)
    newest = head(repository, "main")
    assert newest is not None
    versions = list(line(repository, newest))
    assert len({each.op for each in versions}) == len(versions)
    assert newest.op == told.op
    assert fsck(repository) == []
    return repository


@pytest.mark.parametrize("step", range(STEPS))
def test_a_versioner_killed_at_any_change_to_the_store_leaves_the_version_once(
    deployment: Deployment, tables: Client, specs: list[TableSpec], step: int
) -> None:
    """`DRIFTLINE_TESTS_EVERY_STEP` makes it each step on the broker, too."""
    if deployment.kind != LOCAL and step % 4 and not EVERY_STEP:
        pytest.skip("each step on the embedded log, every fourth on the broker: the store is the same")
    with VersionerProcess(
        deployment, f"dying-{step}", {**GATED, "DRIFTLINE_TESTS_DIE_AT": str(step)}, DYING
    ) as one:
        train(tables, specs, step)
        cut = tables.snapshot(figures={"loss": 1.0})
        until(lambda: one.died, "it died", seconds=30)
    with VersionerProcess(deployment, f"after-{step}", GATED):
        told = tables.version_of(cut)
        check(deployment, specs, told)
    found = Counter(each.version for each in events_of(deployment) if isinstance(each, VersionCommitted))
    assert set(found.values()) == {1}


@pytest.mark.parametrize("moment", sorted(MOMENTS))
def test_a_node_rollback_whose_versioner_is_killed_is_finished_by_the_next(
    deployment: Deployment, tables: Client, specs: list[TableSpec], moment: str
) -> None:
    number, spec, ids = next(_names), specs[0], np.arange(50, dtype=np.uint64)
    ones = np.ones((len(ids), spec.dim), np.float32)
    table = tables.table(spec.name)
    dying = {**GATED, "DRIFTLINE_TESTS_DIE_IN_ROLLBACK": moment}
    with (
        ThreadPoolExecutor(1) as pool,
        VersionerProcess(deployment, f"rolling-{number}", dying, DYING) as one,
    ):
        table.push(ids, ones)
        cut = tables.snapshot(kind="backup")
        then = table.get(ids).vectors.copy()
        table.push(ids, ones)
        waiting = pool.submit(tables.roll_back_to_backup, spec.name, ids.tolist(), cut.op)
        until(lambda: one.died, "it died", seconds=30)
        with VersionerProcess(deployment, f"rolled-{number}", GATED):
            done = waiting.result(timeout=90)
            assert done.rows == len(ids)
            assert np.array_equal(bits(table.get(ids).vectors), bits(then))


def test_two_instances_share_the_shards_and_one_goes_on_when_the_other_dies(
    deployment: Deployment, tables: Client, specs: list[TableSpec]
) -> None:
    number = next(_names)
    with (
        VersionerProcess(deployment, f"left-{number}", GATED) as left,
        VersionerProcess(deployment, f"right-{number}", GATED) as right,
    ):
        until(
            lambda: SHARED in left.log and SHARED in right.log,
            "shared",
            seconds=60,
        )
        for seed in (100, 101):
            train(tables, specs, seed)
            check(deployment, specs, tables.version_of(tables.snapshot(figures={"loss": 1.0})))
        train(tables, specs, 102)
        cut = tables.snapshot(figures={"loss": 1.0})
        right.kill()
        repository = check(deployment, specs, tables.version_of(cut))
    assert not list(repository.store.list("gates"))


def test_a_store_that_is_away_pauses_versions_and_not_training(
    deployment: Deployment, tables: Client, specs: list[TableSpec]
) -> None:
    with VersionerProcess(deployment, f"paused-{next(_names)}", GATED) as versioner:
        train(tables, specs, 200)
        tables.version_of(tables.snapshot())
        store = Path(deployment.store_url.removeprefix("file://"))
        os.rename(store, deployment.directory / "away")
        store.write_text("a file where the folder was")
        train(tables, specs, 201)
        cut = tables.snapshot()  # every shard passes it: training goes on
        until(lambda: f"op {cut.op}: waiting" in versioner.log, "it waits", seconds=20)
        store.unlink()
        os.rename(deployment.directory / "away", store)
        check(deployment, specs, tables.version_of(cut))
