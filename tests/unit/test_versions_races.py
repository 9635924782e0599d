"""Writers in threads that commit at the same moment."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from driftline.errors import VersionRaceError
from driftline.versions import Manifest, ObjectStore, commit, create_branch, fsck, open_store
from tests.support.versioning import Clock, Live, opened, read_contents

WRITERS = 8


@pytest.fixture(params=["memory", "file"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> ObjectStore:
    return open_store("memory://" if request.param == "memory" else f"file://{tmp_path}")


def test_of_writers_that_continue_one_branch_at_once_one_commits(store: ObjectStore) -> None:
    clock = Clock()
    root = Live().commit(opened(store, clock), "op-0", None)
    gate = threading.Barrier(WRITERS)

    def write(who: int) -> Manifest | None:
        repository = opened(store, clock)
        live = Live()
        live.upsert([who])
        draft = live.draft(repository, f"op-1-{who}", root)
        gate.wait()
        try:
            return commit(repository, draft)
        except VersionRaceError:
            return None

    with ThreadPoolExecutor(WRITERS) as pool:
        won = [each for each in pool.map(write, range(WRITERS)) if each is not None]

    assert [each.version for each in won] == ["V-R-1.1"]
    assert opened(store, clock).listing().names() == ["V-R-1.0", "V-R-1.1"]


def test_writers_of_different_branches_that_commit_at_once_get_names_of_their_own(store: ObjectStore) -> None:
    clock = Clock()
    repository = opened(store, clock)
    root = Live().commit(repository, "op-0", None)
    gate = threading.Barrier(WRITERS)
    for who in range(WRITERS):
        create_branch(repository, f"b{who}", root.version)

    def write(who: int) -> tuple[Manifest, Live]:
        mine = opened(store, clock)
        live = Live()
        live.upsert([who])
        draft = live.draft(mine, f"op-1-{who}", root, branch=f"b{who}", scenario="W")
        gate.wait()
        return commit(mine, draft), live

    with ThreadPoolExecutor(WRITERS) as pool:
        done = list(pool.map(write, range(WRITERS)))

    assert sorted(each.version for each, _ in done) == [f"V-W-{number}.0" for number in range(1, WRITERS + 1)]
    for manifest, live in done:
        assert read_contents(repository, manifest) == live.contents()


def test_one_txn_committed_by_all_at_once_is_one_version(store: ObjectStore) -> None:
    clock = Clock()
    repository = opened(store, clock)
    live = Live()
    live.upsert(range(10))
    draft = live.draft(repository, "op-1", None)
    gate = threading.Barrier(WRITERS)

    def write(_: int) -> Manifest:
        mine = opened(store, clock)
        gate.wait()
        return commit(mine, draft)

    with ThreadPoolExecutor(WRITERS) as pool:
        versions = {each.version for each in pool.map(write, range(WRITERS))}

    assert versions == {"V-R-1.0"}
    assert repository.listing().names() == ["V-R-1.0"]
    assert fsck(repository) == []
