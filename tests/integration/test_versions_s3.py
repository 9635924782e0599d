"""Versions on a real S3-compatible server: commit, read through a cache on disk, collect, outage."""

from __future__ import annotations

from pathlib import Path

import pytest

from driftline.errors import ObjectStoreUnavailableError
from driftline.servers import S3Gateway
from driftline.versions import (
    ObjectStore,
    collect,
    commit,
    fsck,
    head,
    open_repository,
    open_store,
    resolve,
    retire,
    set_tag,
    tags,
)
from tests.support import servers
from tests.support.versioning import Clock, Live, read_contents

pytestmark = pytest.mark.s3


def store_at(endpoint: str, key: str, secret: str, region: str, bucket: str) -> ObjectStore:
    options = {"endpoint": endpoint, "access_key_id": key, "secret_access_key": secret, "region": region}
    return open_store(f"s3://{bucket}/versions/default", options)


@pytest.fixture
def store(s3: servers.S3) -> ObjectStore:
    return store_at(s3.endpoint, s3.access_key, s3.secret_key, s3.region, s3.create_bucket())


def test_versions_are_committed_read_and_collected(store: ObjectStore, tmp_path: Path) -> None:
    repository = open_repository(store, "default", cache=tmp_path / "cache", grace=1.0)
    live = Live(["items", "users"])
    live.upsert(range(200))
    live.upsert(range(50), "users")
    first = live.commit(repository, "op-0", None)
    then = live.contents()
    version = first
    for number in range(1, 8):
        live.upsert(range(number * 3, number * 5))
        live.delete([number])
        version = live.commit(repository, f"op-{number}", version)
    set_tag(repository, "release", first.version)

    elsewhere = open_repository(store, "default", cache=tmp_path / "other", grace=1.0)
    assert tags(elsewhere) == {"release": first.version}
    assert read_contents(elsewhere, resolve(elsewhere, "release").manifest) == then
    assert read_contents(elsewhere, resolve(elsewhere, "latest").manifest) == live.contents()
    retire(elsewhere, [f"V-R-1.{number}" for number in range(1, 7)])
    assert collect(elsewhere).delete == ()
    assert fsck(elsewhere) == []


def test_an_outage_fails_a_commit_and_the_same_draft_commits_afterwards(tmp_path: Path) -> None:
    with S3Gateway(tmp_path / "s3") as server:
        server.create_bucket("bucket")
        store = store_at(server.endpoint, server.access_key, server.secret_key, server.region, "bucket")
        repository = open_repository(store, "default", now=Clock())
        live = Live()
        live.upsert(range(20))
        first = live.commit(repository, "op-0", None)
        live.upsert([1, 2])
        draft = live.draft(repository, "op-1", first)
        server.kill()

        with pytest.raises(ObjectStoreUnavailableError):
            commit(repository, draft)
        server.start()

        committed = commit(repository, draft)
        assert read_contents(repository, committed) == live.contents()
        tip = head(repository, "main")
        assert tip is not None
        assert tip.version == committed.version
        assert fsck(repository) == []
