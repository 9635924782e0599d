"""The versioner on real logs and a real Redis: versions hold what the log says at their barrier."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest

from driftline import Client
from driftline.control import VersionCommitted
from driftline.errors import VersionRejectedError
from driftline.versions import fsck, head, line
from tests.integration.deployment import Deployment, Worker
from tests.integration.versioning import (
    VersionerProcess,
    events_of,
    expected_at,
    repository_of,
    stored_rows,
)


@pytest.fixture(scope="module")
def versioner(deployment: Deployment, worker: Worker) -> Iterator[VersionerProcess]:
    with VersionerProcess(
        deployment, "versioner", {"DRIFTLINE_VERSION_GATES": "figure:loss:lower:0.1"}
    ) as one:
        yield one


def ids(rng: np.random.Generator, count: int = 300) -> np.ndarray:
    return np.unique(rng.integers(0, 500, count, dtype=np.uint64))


def test_versions_of_all_tables_hold_the_rows_of_their_barriers(
    deployment: Deployment, client: Client, versioner: VersionerProcess
) -> None:
    specs = [deployment.spec(shards=3), deployment.spec(dim=8, optimizer={"kind": "adam", "lr": 0.01})]
    tables = [client.create_table(spec) for spec in specs]
    rng = np.random.default_rng(1)
    versions = []
    for number in range(3):
        for spec, table in zip(specs, tables, strict=True):
            some = ids(rng)
            table.push(some, rng.normal(size=(len(some), spec.dim)).astype(np.float32))
            table.delete(some[:20])
        cut = client.snapshot(scenario="N", metadata={"step": number}, figures={"auc": 0.5 + number / 10})
        versions.append(client.version_of(cut))
        table.push(some, np.ones((len(some), spec.dim), np.float32))  # behind the cut
    assert [each.version for each in versions] == [f"V-N-1.{minor}" for minor in range(3)]
    repository = repository_of(deployment)
    for version in versions:
        manifest = repository.manifest(version.version)
        assert (manifest.op, manifest.figures["auc"] >= 0.5) == (version.op, True)
        for spec in specs:
            rows = stored_rows(repository, manifest, spec.name)
            assert rows == expected_at(deployment, spec, version.op)
            assert version.rows[spec.name] == len(rows)
    assert fsck(repository) == []


def test_a_version_that_a_gate_rejects_is_not_stored_and_its_rows_go_into_the_next(
    deployment: Deployment, client: Client, versioner: VersionerProcess
) -> None:
    spec = deployment.spec()
    table = client.create_table(spec)
    rng = np.random.default_rng(2)
    some = ids(rng)

    def step(loss: float | None) -> VersionCommitted:
        table.push(some, rng.normal(size=(len(some), spec.dim)).astype(np.float32))
        cut = client.snapshot(figures={} if loss is None else {"loss": loss})
        return client.version_of(cut)

    first = step(0.5)
    with pytest.raises(VersionRejectedError, match=r"loss 0\.7"):
        step(0.7)
    second = step(0.55)
    silent = step(None)
    repository = repository_of(deployment)
    manifest = repository.manifest(second.version)
    assert manifest.parents == (first.version,)
    assert stored_rows(repository, manifest, spec.name) == expected_at(deployment, spec, second.op)
    assert [each["status"] for each in second.gate["judgements"]] == ["passed"]  # type: ignore[attr-defined]
    assert [each["status"] for each in silent.gate["judgements"]] == ["not_evaluated"]  # type: ignore[attr-defined]
    assert repository.manifest(silent.version).verdict["gate"]["unanswered"] == "store"  # type: ignore[index]


def test_backups_are_held_and_rows_put_back_to_them(
    deployment: Deployment, client: Client, versioner: VersionerProcess
) -> None:
    spec = deployment.spec()
    table = client.create_table(spec)
    rng = np.random.default_rng(3)
    some = ids(rng)
    table.push(some, rng.normal(size=(len(some), spec.dim)).astype(np.float32))
    cut = client.snapshot(kind="backup")
    then = table.get(some).vectors.copy()
    table.push(some, np.ones((len(some), spec.dim), np.float32))
    unknown = np.uint64(1 << 40)
    done = client.roll_back_to_backup(spec.name, [*some[:10].tolist(), int(unknown)], cut.op)
    now = table.get(some).vectors
    assert done.rows == 10
    assert done.absent == (1 << 40,)
    assert (now[:10] == then[:10]).all()
    assert not (now[10:] == then[10:]).any()
    assert cut.op in [each.op for each in client.backups()]


def test_each_version_is_told_once_and_the_line_is_whole(
    deployment: Deployment, client: Client, versioner: VersionerProcess
) -> None:
    repository = repository_of(deployment)
    newest = head(repository, "main")
    assert newest is not None
    told = [each.version for each in events_of(deployment) if isinstance(each, VersionCommitted)]
    assert sorted(told) == sorted(each.version for each in line(repository, newest))
