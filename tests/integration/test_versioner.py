"""The versioner on real logs and a real Redis: versions hold what the log says at their barrier."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest

from driftline import Client
from driftline.control import VersionCommitted
from driftline.errors import VersionRejectedError
from driftline.versions import Manifest, create_branch, fsck, head, line, open_repository, open_store
from tests.integration.deployment import Deployment, Worker
from tests.integration.versioning import (
    VersionerProcess,
    events_of,
    expected_at,
    repository_of,
    stored_rows,
)
from tests.support import servers
from tests.support.waiting import until


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


def test_a_rollback_becomes_a_version_and_a_checkout_moves_the_line(
    deployment: Deployment, client: Client, versioner: VersionerProcess
) -> None:
    """Needs clients and aggregators that restore; both read the versioner's store."""
    spec = deployment.spec()
    table = client.create_table(spec)
    rng = np.random.default_rng(5)
    some = ids(rng)

    def train() -> VersionCommitted:
        table.push(some, rng.normal(size=(len(some), spec.dim)).astype(np.float32))
        return client.version_of(client.snapshot())

    first, second = train(), train()
    repository = repository_of(deployment)
    client.restore(first.version)
    went_on = (second.version,)
    until(lambda: newest_of(deployment).parents == went_on, "the rollback is a version", seconds=60)
    back = newest_of(deployment)
    assert back.base == first.version
    assert stored_rows(repository, back, spec.name) == stored_rows(
        repository, repository.manifest(first.version), spec.name
    )
    third = train()
    assert third.parents == (back.version,)
    create_branch(repository, "exp", first.version)
    client.restore(first.version, mode="checkout", branch="exp", scenario="X")
    fourth = train()
    assert (fourth.branch, fourth.scenario, fourth.parents) == ("exp", "X", (first.version,))


def newest_of(deployment: Deployment) -> Manifest:
    newest = head(repository_of(deployment), "main")
    assert newest is not None
    return newest


@pytest.mark.s3
def test_versions_go_to_an_s3_store_and_a_versioner_goes_on_from_there(
    own_deployment: Deployment, s3: servers.S3
) -> None:
    url = f"s3://{s3.create_bucket()}/versions"
    access = {
        "DRIFTLINE_STORE_URL": url,
        "AWS_ENDPOINT_URL": s3.endpoint,
        "AWS_ACCESS_KEY_ID": s3.access_key,
        "AWS_SECRET_ACCESS_KEY": s3.secret_key,
        "AWS_REGION": s3.region,
        "AWS_ALLOW_HTTP": "true",
    }
    options = {
        "endpoint": s3.endpoint,
        "access_key_id": s3.access_key,
        "secret_access_key": s3.secret_key,
        "region": s3.region,
    }
    other = own_deployment
    spec = other.spec()
    rng = np.random.default_rng(4)
    told = []
    with other.worker("s3-worker"), other.client() as trainer:
        table = trainer.create_table(spec)
        for number in range(2):
            with VersionerProcess(other, f"s3-{number}", access):
                some = ids(rng)
                table.push(some, rng.normal(size=(len(some), spec.dim)).astype(np.float32))
                told.append(trainer.version_of(trainer.snapshot()))
    repository = open_repository(open_store(f"{url}/{other.group}", options), other.group)
    assert [each.version for each in told] == ["V-R-1.0", "V-R-1.1"]
    for each in told:
        manifest = repository.manifest(each.version)
        assert stored_rows(repository, manifest, spec.name) == expected_at(other, spec, each.op)
