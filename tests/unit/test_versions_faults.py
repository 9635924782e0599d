"""Each operation of the object store fails, at every point of commit, tag, collection and rollback.

Whatever happens, others see the old state or the new one, nothing is damaged, doing it again
succeeds, and two collections later nothing is left that nobody needs.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass

import pytest

from driftline.errors import DriftlineError, ObjectStoreUnavailableError
from driftline.versions import (
    Draft,
    Repository,
    branches,
    collect,
    commit,
    compact,
    create_branch,
    fsck,
    head,
    merge,
    open_repository,
    pin,
    pins,
    put_fragment,
    read_fragments,
    remove_branch,
    remove_tag,
    retire,
    set_tag,
    tags,
    unpin,
)
from driftline.versions.fragments import drop_fragments
from driftline.versions.rewriting import Limits
from driftline.versions.tiers import INT8
from tests.support.object_store_fake import FakeObjects, Fault, FaultyObjects
from tests.support.versioning import GRACE, Clock, Contents, Live, opened, read_contents


@dataclass(frozen=True)
class Seen:
    """What everybody sees of a repository."""

    versions: tuple[tuple[str, tuple[tuple[str, int], ...]], ...]
    contents: tuple[tuple[str, str], ...]
    tags: tuple[tuple[str, str], ...]
    branches: tuple[tuple[str, str | None], ...]
    pins: int


def seen(repository: Repository) -> Seen:
    names = repository.listing().names()
    manifests = [repository.manifest(name) for name in names]
    rows = [
        (each.version, repr(sorted(map(repr, _flat(read_contents(repository, each)))))) for each in manifests
    ]
    return Seen(
        tuple((each.version, tuple((t, m.rows) for t, m in each.tables.items())) for each in manifests),
        tuple(rows),
        tuple(tags(repository).items()),
        tuple(branches(repository).items()),
        len(pins(repository)),
    )


def _flat(contents: Contents) -> list[object]:
    return [(table, row, value) for table, rows in contents.items() for row, value in rows.items()]


class Stage:
    """A repository with some history, and what is done to it next."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.store = FakeObjects(self.clock)
        repository = opened(self.store, self.clock)
        self.live = Live(["items", "users"])
        self.live.upsert(range(12))
        self.live.upsert(range(6), "users")
        self.first = self.live.commit(repository, "op-0", None)
        self.then = self.live.contents()
        aside = Live(["items", "users"])
        aside.shards = copy.deepcopy(self.live.shards)
        self.live.upsert([1, 2, 30])
        self.live.delete([3])
        self.second = self.live.commit(repository, "op-1", self.first)
        self.live.upsert([4])
        self.third = self.live.commit(repository, "op-2", self.second)
        create_branch(repository, "exp", self.first.version)
        create_branch(repository, "side", self.first.version)
        aside.upsert([2, 60])
        self.aside = aside.commit(repository, "op-9", self.first, branch="side", scenario="N")
        set_tag(repository, "release", self.first.version)
        pin(repository, "ads", self.third.version, self.clock.time + 1e9)


def do_commit(stage: Stage, repository: Repository) -> None:
    stage.live.upsert([5, 40])
    stage.live.delete([1])
    draft = stage.live.draft(repository, "op-3", head(repository, "main"))
    commit(repository, draft)


def do_rollback(stage: Stage, repository: Repository) -> None:
    stage.live.restore(stage.then)
    target = repository.manifest(stage.first.version)
    commit(repository, stage.live.draft(repository, "op-3", head(repository, "main"), base=target))


def do_branch_commit(stage: Stage, repository: Repository) -> None:
    stage.live.restore(stage.then)
    stage.live.upsert([2])
    start = repository.manifest(stage.first.version)
    commit(repository, stage.live.draft(repository, "op-4", start, branch="exp", scenario="W"))


def do_fragments(stage: Stage, repository: Repository) -> None:
    stage.live.upsert([5, 41])
    parent = head(repository, "main")
    if parent is not None and parent.txn == "op-3":
        return
    sealed = stage.live.sealed(repository, "op-3", parent, repository.put)
    for table, manifest in sealed.items():
        for number, part in enumerate(manifest.parts):
            put_fragment(repository, "op-3", table, number, part)
    found = read_fragments(repository, "op-3")
    tables = {
        name: type(each)(
            each.dim, each.state_size, each.schema, tuple(found[name, k] for k in range(len(each.parts)))
        )
        for name, each in sealed.items()
    }
    assert parent is not None
    commit(repository, Draft("op-3", "R", tables, parents=(parent.version,)))
    drop_fragments(repository, "op-3")


def do_tag(stage: Stage, repository: Repository) -> None:
    set_tag(repository, "release", stage.third.version)


def do_untag(_: Stage, repository: Repository) -> None:
    if tags(repository):
        remove_tag(repository, "release")


def do_branch(stage: Stage, repository: Repository) -> None:
    if "exp2" not in branches(repository):
        create_branch(repository, "exp2", stage.second.version)


def do_unbranch(_: Stage, repository: Repository) -> None:
    if "exp" in branches(repository):
        remove_branch(repository, "exp")


def do_unpin(stage: Stage, repository: Repository) -> None:
    if pins(repository):
        unpin(repository, "ads", stage.third.version)


def do_retire(stage: Stage, repository: Repository) -> None:
    if stage.second.version in repository.listing().revisions:
        retire(repository, [stage.second.version])


def do_compact(stage: Stage, repository: Repository) -> None:
    compact(repository, limits=Limits(segments=1))


def do_blur(stage: Stage, repository: Repository) -> None:
    compact(repository, {stage.second.version: INT8})


def do_merge(stage: Stage, repository: Repository) -> None:
    merge(repository, stage.aside.version)


def do_open(stage: Stage, repository: Repository) -> None:
    open_repository(repository.store, "g", now=stage.clock, grace=GRACE)


ACTIONS: dict[str, Callable[[Stage, Repository], None]] = {
    name.removeprefix("do_"): action for name, action in list(globals().items()) if name.startswith("do_")
}


def cleaned(stage: Stage) -> None:
    """Collect until nothing is left to collect, and see that nothing else is left."""
    for _ in range(4):
        stage.clock.time += GRACE + 1
        collect(opened(stage.store, stage.clock))
    repository = opened(stage.store, stage.clock)
    needed = {key for name in repository.listing().names() for key in repository.manifest(name).objects()}
    kept = {
        key
        for key in stage.store.objects
        if key.startswith(("tables/", "attachments/", ".staging/", "frag/"))
    }
    assert kept == needed
    assert fsck(repository) == []


@pytest.mark.parametrize("fault", list(Fault), ids=lambda fault: fault.name.lower())
@pytest.mark.parametrize("action", ACTIONS)
def test_a_fault_at_any_operation_leaves_the_old_state_or_the_new(action: str, fault: Fault) -> None:
    act = ACTIONS[action]
    whole = Stage()
    old = seen(opened(whole.store, whole.clock))
    counting = FaultyObjects(whole.store)
    opening = _opening()
    act(whole, open_repository(counting, "g", now=whole.clock, grace=GRACE))
    new = seen(opened(whole.store, whole.clock))
    assert counting.count > opening or action == "open"

    for at in range(opening, counting.count):
        stage = Stage()
        faulty = FaultyObjects(stage.store, fault, at)
        repository = open_repository(faulty, "g", now=stage.clock, grace=GRACE)
        with suppress(ObjectStoreUnavailableError):
            act(stage, repository)
        after = seen(opened(stage.store, stage.clock))
        assert after in (old, new), f"operation {at}"
        assert fsck(opened(stage.store, stage.clock)) == [], f"operation {at}"

        stage.live.forget_changes()
        again = Stage().live
        stage.live.shards = again.shards
        act(stage, opened(stage.store, stage.clock))
        assert seen(opened(stage.store, stage.clock)) == new, f"operation {at}, again"
        cleaned(stage)


@pytest.mark.parametrize("fault", list(Fault), ids=lambda fault: fault.name.lower())
def test_a_fault_at_any_operation_of_a_collection_takes_nothing_that_is_needed(fault: Fault) -> None:
    def prepared() -> tuple[Stage, Seen]:
        stage = Stage()
        repository = opened(stage.store, stage.clock)
        retire(repository, [stage.second.version])
        stage.store.create(".staging/torn", b"x")
        put_fragment(
            repository,
            "op-77",
            "items",
            0,
            stage.live.sealed(repository, "op-77", stage.third, repository.put)["items"].parts[0],
        )
        stage.clock.time += GRACE + 1
        collect(opened(stage.store, stage.clock))
        stage.clock.time += GRACE + 1
        return stage, seen(opened(stage.store, stage.clock))

    stage, old = prepared()
    counting = FaultyObjects(stage.store)
    collect(open_repository(counting, "g", now=stage.clock, grace=GRACE))
    assert counting.count > 20

    for at in range(_opening(), counting.count):
        stage, old = prepared()
        faulty = FaultyObjects(stage.store, fault, at)
        with suppress(ObjectStoreUnavailableError):
            collect(open_repository(faulty, "g", now=stage.clock, grace=GRACE))
        assert seen(opened(stage.store, stage.clock)) == old, f"operation {at}"
        assert fsck(opened(stage.store, stage.clock)) == [], f"operation {at}"
        cleaned(stage)
        assert seen(opened(stage.store, stage.clock)) == old, f"operation {at}, later"


def test_a_full_store_leaves_the_previous_head_and_names_the_object() -> None:
    class Full(FakeObjects):
        def create(self, key: str, data: bytes) -> None:
            raise ObjectStoreUnavailableError(f"fake://: {key}: No space left on device")

    stage = Stage()
    full = Full(stage.clock)
    full.objects = stage.store.objects

    with pytest.raises(DriftlineError, match=r"tables/items/.*No space left"):
        do_commit(stage, open_repository(full, "g", now=stage.clock, grace=GRACE))

    left = head(opened(stage.store, stage.clock), "main")
    assert left is not None
    assert left.version == stage.third.version


def _opening() -> int:
    """Operations that opening a repository takes."""
    stage = Stage()
    counting = FaultyObjects(stage.store)
    open_repository(counting, "g", now=stage.clock, grace=GRACE)
    return counting.count
