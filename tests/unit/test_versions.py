"""Versions told as behaviours: what is stored, read, compared, explained, held and raced for."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from driftline.errors import (
    DamagedObjectError,
    DeltaError,
    InputError,
    ObjectMissingError,
    StoreFormatError,
    UnknownTableError,
    UnknownVersionError,
    VersionHeldError,
    VersionRaceError,
)
from driftline.frames.states import States
from driftline.versions import (
    DeltaBuffer,
    Draft,
    Manifest,
    Repository,
    TableReader,
    blame,
    collect,
    commit,
    complete,
    create_branch,
    diff,
    drop_fragments,
    explain,
    fsck,
    head,
    open_repository,
    pin,
    plan_collection,
    put_fragment,
    read_fragments,
    removable,
    remove_branch,
    remove_tag,
    retire,
    set_tag,
    tags,
    unpin,
)
from driftline.versions.manifest import write_manifest
from tests.support.object_store_fake import FakeObjects
from tests.support.versioning import DIM, GRACE, STATE, Clock, Live, opened, read_contents, rows_by_id


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def store(clock: Clock) -> FakeObjects:
    return FakeObjects(clock)


@pytest.fixture
def repository(store: FakeObjects, clock: Clock) -> Repository:
    return opened(store, clock)


def stored_rows(manifest: Manifest) -> int:
    """Rows in the segments that a version needs."""
    return sum(
        each.rows for table in manifest.tables.values() for part in table.parts for each in part.segments
    )


# -- differential storage [EM10]


def test_the_worked_example_stores_nine_rows_for_fifteen_visible(repository: Repository) -> None:
    """V1 writes u1..u5, V2 changes u1, u2, u3, V3 changes u2."""
    live = Live(shards=1)
    versions: list[Manifest] = []
    seen = []
    for number, changed in enumerate([[1, 2, 3, 4, 5], [1, 2, 3], [2]], 1):
        live.upsert(changed)
        versions.append(live.commit(repository, f"op-{number}", versions[-1] if versions else None))
        seen.append(live.contents())

    assert stored_rows(versions[-1]) == 9
    assert [each.tables["items"].rows for each in versions] == [5, 5, 5]
    for version, contents in zip(versions, seen, strict=True):
        assert read_contents(repository, version) == contents


@pytest.mark.parametrize(
    ("row", "at", "written_by"),
    [
        *((1, 1, 1), (2, 1, 1), (3, 1, 1), (4, 1, 1), (5, 1, 1)),
        *((1, 2, 2), (2, 2, 2), (3, 2, 2), (4, 2, 1), (5, 2, 1)),
        *((1, 3, 2), (2, 3, 3), (3, 3, 2), (4, 3, 1), (5, 3, 1)),
    ],
)
def test_the_worked_example_maps_each_row_to_the_version_that_wrote_it(
    repository: Repository, row: int, at: int, written_by: int
) -> None:
    live = Live(shards=1)
    versions: list[Manifest] = []
    for number, changed in enumerate([[1, 2, 3, 4, 5], [1, 2, 3], [2]], 1):
        live.upsert(changed)
        versions.append(live.commit(repository, f"op-{number}", versions[-1] if versions else None))

    explanation = explain(repository, versions[at - 1], "items", row)

    assert explanation is not None
    assert explanation.written_by == versions[written_by - 1].version
    assert explanation.log_range == (written_by - 1, written_by)
    assert explanation.offset == written_by - 1


def test_an_owner_map_replaces_the_search_and_segments_without_live_rows_go(repository: Repository) -> None:
    live = Live(shards=1)
    version = None
    live.upsert(range(100))
    for number in range(12):  # an owner map every four segments
        live.upsert([1, 2, number])
        version = live.commit(repository, f"op-{number}", version)
    assert version is not None
    part = version.tables["items"].parts[0]

    assert part.owners is not None
    assert len(part.segments) < 13
    assert read_contents(repository, version) == live.contents()


def test_a_row_deleted_and_born_again_is_the_new_one(repository: Repository) -> None:
    live = Live()
    live.upsert(range(10))
    first = live.commit(repository, "op-1", None)
    before = live.contents()
    live.delete([3, 4])
    live.upsert([3])
    second = live.commit(repository, "op-2", first)
    live.delete([3])
    third = live.commit(repository, "op-3", second)

    assert read_contents(repository, first) == before
    assert set(read_contents(repository, second)["items"]) == {*range(10)} - {4}
    assert read_contents(repository, third) == live.contents()


def test_a_row_born_and_ended_between_two_versions_leaves_no_trace(repository: Repository) -> None:
    live = Live(shards=1)
    live.upsert([1])
    first = live.commit(repository, "op-1", None)
    live.upsert([2])
    live.delete([2])
    second = live.commit(repository, "op-2", first)

    assert second.tables["items"].parts[0].segments == first.tables["items"].parts[0].segments


def test_a_version_in_which_nothing_changed_stores_nothing_but_its_manifest(
    repository: Repository, store: FakeObjects
) -> None:
    live = Live()
    live.upsert(range(10))
    first = live.commit(repository, "op-1", None)
    before = {key for key in store.objects if key.startswith("tables/")}
    second = live.commit(repository, "op-2", first)

    assert {key for key in store.objects if key.startswith("tables/")} == before
    assert read_contents(repository, second) == live.contents()


def test_ids_that_do_not_exist_are_told_apart_from_zeros(repository: Repository) -> None:
    live = Live()
    live.upsert([1, 2])
    version = live.commit(repository, "op-1", None)
    reader = TableReader(repository.cache, version, "items")

    read = reader.rows(np.array([2, 99, 2, 1], np.uint64))

    assert read.found.tolist() == [True, False, True, True]
    assert not read.rows.rows[1].any()
    assert rows_by_id(reader, []) == {}


def test_an_empty_table_is_a_version_too(repository: Repository) -> None:
    version = Live().commit(repository, "op-1", None)

    assert read_contents(repository, version) == {"items": {}}
    assert rows_by_id(TableReader(repository.cache, version, "items"), [1, 2]) == {}
    assert fsck(repository) == []


# -- the delta


def states(ids: list[int], at: int, value: float) -> States:
    count = len(ids)
    return States(
        "items",
        0,
        np.array(ids, np.uint64),
        np.array(ids, np.uint32),
        np.full(count, at, np.uint64),
        np.full((count, DIM), value, np.float32),
        np.full((count, STATE), value, np.float32),
        np.full(count, 2, np.uint8),
    )


def test_the_newest_lsn_of_a_row_wins_whatever_the_order() -> None:
    delta = DeltaBuffer(DIM, STATE)
    for at, value in [(5, 5.0), (9, 9.0), (7, 7.0), (9, 9.0)]:
        delta.add(states([1, 2], at, value))

    rows, state = delta.take(np.arange(len(delta)))
    assert len(delta) == 2
    assert (rows == 9).all()
    assert (state == 9).all()


def test_states_below_the_floor_of_a_restore_are_ignored() -> None:
    delta = DeltaBuffer(DIM, STATE)
    delta.add(states([1], 5, 1.0))
    delta.clear(10)
    delta.add(states([2], 9, 1.0))
    delta.add(states([3], 10, 1.0))

    assert delta.index().ids.tolist() == [3]


def test_a_delta_beyond_its_memory_goes_on_in_a_file() -> None:
    small, large = DeltaBuffer(DIM, STATE, memory=1 << 12), DeltaBuffer(DIM, STATE)
    rng = np.random.default_rng(3)
    for at in range(50):
        some = rng.choice(5000, 400, replace=False).tolist()
        for delta in (small, large):
            delta.add(states(some, at, float(at)))

    assert small.spilled
    assert not large.spilled
    places = np.arange(len(large))
    assert small.index().ids.tolist() == large.index().ids.tolist()
    assert small.take(places)[0].tobytes() == large.take(places)[0].tobytes()


def test_states_of_another_width_are_refused() -> None:
    with pytest.raises(InputError, match=f"rows of {DIM} and {STATE}, expected 7"):
        DeltaBuffer(7, 0).add(states([1], 1, 1.0))


def test_a_delta_that_lacks_a_row_is_no_version(repository: Repository) -> None:
    live = Live(shards=1)
    live.upsert([1, 2])
    live.forget_changes()  # as if an update had been lost
    live.upsert([3])

    with pytest.raises(DeltaError, match=r"items:0: .* 3 rows, .* make 1"):
        live.commit(repository, "op-1", None)


def test_two_ids_of_one_ordinal_are_refused(repository: Repository) -> None:
    live = Live(shards=1)
    both = states([1, 2], 1, 1.0)
    live.deltas["items"][0].add(replace(both, ordinals=np.zeros(2, np.uint32)))

    with pytest.raises(DeltaError, match="ids 1 and 2 share ordinal 0"):
        live.commit(repository, "op-1", None)


# -- commit


def test_tables_of_a_group_are_committed_by_one_object(repository: Repository, store: FakeObjects) -> None:
    live = Live(["items", "users"])
    live.upsert([1], "items")
    live.upsert([2], "users")
    draft = live.draft(repository, "op-1", None)
    before = set(store.objects)

    committed = commit(repository, draft)

    assert [key for key in set(store.objects) - before if "heads" not in key] == [committed.key]
    assert read_contents(repository, committed) == live.contents()


def test_the_same_txn_commits_once(repository: Repository, store: FakeObjects, clock: Clock) -> None:
    live = Live()
    live.upsert([1])
    draft = live.draft(repository, "op-1", None)
    first = commit(repository, draft)
    live.forget_changes()
    live.upsert([2])
    live.commit(repository, "op-2", first)

    assert commit(opened(store, clock), draft) == first
    assert repository.listing().names() == ["V-R-1.0", "V-R-1.1"]


def test_the_same_txn_is_found_even_when_its_version_was_removed(
    repository: Repository, clock: Clock
) -> None:
    live = Live()
    draft = live.draft(repository, "op-1", None)
    first = commit(repository, draft)
    live.commit(repository, "op-2", first)
    retire(repository, [first.version])

    assert commit(repository, draft) == first
    for _ in range(3):
        clock.time += GRACE + 1
        collect(repository)
    with pytest.raises(VersionRaceError):
        commit(opened(repository.store, clock), draft)
    assert repository.listing().names() == ["V-R-1.1"]


def test_a_second_writer_of_a_branch_is_told(
    repository: Repository, store: FakeObjects, clock: Clock
) -> None:
    live, other = Live(), Live()
    first = live.commit(repository, "op-0", None)
    mine, theirs = live.draft(repository, "op-1", first), other.draft(repository, "op-1b", first)
    commit(opened(store, clock), theirs)

    with pytest.raises(VersionRaceError, match=r"main is at V-R-1\.1, not at V-R-1\.0"):
        commit(repository, mine)


def test_two_runs_that_race_for_a_name_get_one_each(repository: Repository) -> None:
    root = Live().commit(repository, "op-0", None)
    for branch in ("web", "mobile"):
        create_branch(repository, branch, root.version)
    versions = [
        Live().commit(repository, f"op-{branch}", root, branch=branch, scenario="W")
        for branch in ("web", "mobile")
    ]

    assert [each.version for each in versions] == ["V-W-1.0", "V-W-2.0"]


def test_a_branch_goes_on_beside_main_in_the_next_free_names(repository: Repository) -> None:
    live = Live()
    root = live.commit(repository, "op-0", None)
    create_branch(repository, "exp", root.version)
    second = live.commit(repository, "op-1", root)
    fork = Live().commit(repository, "op-2", root, branch="exp")
    third = live.commit(repository, "op-3", second)

    assert [each.version for each in (second, fork, third)] == ["V-R-1.1", "V-R-1.2", "V-R-1.3"]
    assert [each.version for each in (head(repository, "main"), head(repository, "exp")) if each] == [
        "V-R-1.3",
        "V-R-1.2",
    ]


def test_a_rollback_is_a_version_of_metadata_only(repository: Repository, store: FakeObjects) -> None:
    live = Live()
    live.upsert(range(20))
    target = live.commit(repository, "op-1", None)
    then = live.contents()
    live.upsert(range(10, 30))
    live.delete([1])
    last = live.commit(repository, "op-2", target)
    live.restore(then)
    before = {key for key in store.objects if key.startswith("tables/")}

    back = live.commit(repository, "op-3", last, base=target)

    assert {key for key in store.objects if key.startswith("tables/")} == before
    assert (back.parents, back.base) == (("V-R-1.1",), "V-R-1.0")
    assert read_contents(repository, back) == then
    live.upsert([1, 100])
    onward = live.commit(repository, "op-4", back)
    assert read_contents(repository, onward) == live.contents()
    assert fsck(repository) == []


def test_heads_are_only_hints(repository: Repository, store: FakeObjects, clock: Clock) -> None:
    live = Live()
    version = live.commit(repository, "op-0", None)
    version = live.commit(repository, "op-1", version)
    hints = [key for key in store.objects if key.startswith("heads/")]
    for key in hints:
        del store.objects[key]
    store.create("heads/main/0000000000-V-X-9.9", b"")

    found = head(opened(store, clock), "main")

    assert found is not None
    assert found.version == version.version


def test_a_commit_that_took_too_long_is_refused(repository: Repository, clock: Clock) -> None:
    live = Live()
    live.upsert([1])
    draft = live.draft(repository, "op-1", None)
    clock.time += GRACE / 2 + 1

    with pytest.raises(DeltaError, match="seal the version again"):
        commit(repository, draft)


def test_fragments_of_several_instances_become_one_version(store: FakeObjects, clock: Clock) -> None:
    one, two = opened(store, clock), opened(store, clock)
    live = Live(["items", "users"])
    live.upsert(range(30), "items")
    sealed = live.sealed(one, "op-1", None, one.put)
    shards = {"items": 2, "users": 2}
    for number, repository in enumerate([one, two]):
        assert complete(read_fragments(repository, "op-1"), shards) is None
        for table in shards:
            put_fragment(repository, "op-1", table, number, sealed[table].parts[number])

    versions = []
    for repository in (one, two):
        parts = complete(read_fragments(repository, "op-1"), shards)
        assert parts is not None
        tables = {name: replace(sealed[name], parts=tuple(parts[name])) for name in shards}
        versions.append(commit(repository, Draft("op-1", "R", tables)))
    drop_fragments(two, "op-1")

    assert versions[0] == versions[1]
    assert read_contents(one, versions[0]) == live.contents()
    assert fsck(one) == []


def test_of_two_fragments_of_a_shard_the_first_is_in_force(repository: Repository) -> None:
    live = Live()
    live.upsert([1])
    first, second = (
        live.sealed(repository, "op-1", None, repository.put)["items"].parts[0] for _ in range(2)
    )

    assert put_fragment(repository, "op-1", "items", 0, first) == first
    assert put_fragment(repository, "op-1", "items", 0, second) == first


def test_fragments_that_are_too_old_are_not_built_on(repository: Repository, clock: Clock) -> None:
    live = Live()
    put_fragment(
        repository,
        "op-1",
        "items",
        0,
        live.sealed(repository, "op-1", None, repository.put)["items"].parts[0],
    )
    clock.time += GRACE / 2 + 1

    with pytest.raises(DeltaError, match="drop and write them again"):
        read_fragments(repository, "op-1")


def test_a_backup_in_memory_is_read_like_a_version_and_becomes_part_of_one(
    repository: Repository, store: FakeObjects, clock: Clock
) -> None:
    live = Live()
    live.upsert(range(20))
    first = live.commit(repository, "op-1", None)
    live.upsert(range(5))
    backup = replace(first, version="V-R-1.1", tables=live.sealed(repository, "op-2", first, repository.hold))
    then = live.contents()
    held = set(store.objects)
    live.forget_changes()
    live.upsert([7])

    assert read_contents(repository, backup) == then
    assert set(store.objects) == held
    assert repository.cache.held_bytes > 0

    tables = live.sealed(repository, "op-3", backup, repository.hold)
    draft = Draft("op-3", "R", tables, parents=(first.version,))
    version = commit(repository, draft)

    assert read_contents(opened(store, clock), version) == live.contents()


def test_attachments_are_kept_with_the_version_and_checked(
    repository: Repository, store: FakeObjects
) -> None:
    dense = repository.attach(b"weights")
    version = Live().commit(repository, "op-1", None, attachments={"dense": dense})
    key = version.attachments["dense"].key

    assert repository.read_attachment(version.attachments["dense"]) == b"weights"
    store.objects[key] = (b"weightz", 0.0)
    with pytest.raises(DamagedObjectError, match=key):
        repository.read_attachment(dense)
    assert [each.object for each in fsck(repository)] == [key]


# -- comparing and explaining


def test_a_diff_names_what_changed_was_added_and_removed(repository: Repository) -> None:
    live = Live()
    live.upsert(range(50))
    first = live.commit(repository, "op-1", None)
    live.upsert([3, 4, 60])
    live.delete([7])
    live.delete([8])
    live.upsert([8])  # a new life, another row
    second = live.commit(repository, "op-2", first)
    readers = [TableReader(repository.cache, each, "items") for each in (first, second)]

    found = list(diff(*readers))
    back = list(diff(*reversed(readers)))

    assert sorted(row for each in found for row in each.changed.tolist()) == [3, 4, 8]
    assert [row for each in found for row in each.added.tolist()] == [60]
    assert [row for each in found for row in each.removed.tolist()] == [7]
    assert [row for each in back for row in each.added.tolist()] == [7]
    assert all((each.distance > 0).all() for each in found)


def test_a_diff_reads_no_row_that_did_not_change(
    repository: Repository, store: FakeObjects, clock: Clock
) -> None:
    live = Live(shards=1)
    live.upsert(range(3000))
    first = live.commit(repository, "op-1", None)
    live.upsert([1, 2])
    second = live.commit(repository, "op-2", first)
    fresh = opened(store, clock)
    readers = [TableReader(fresh.cache, each, "items") for each in (first, second)]

    (found,) = diff(*readers)

    assert found.changed.tolist() == [1, 2]
    segment = fresh.cache.open(first.tables["items"].parts[0].segments[0].ref)
    assert not segment.all_seen


def test_a_row_written_again_with_the_same_bits_is_no_difference(repository: Repository) -> None:
    live = Live(shards=1)
    live.upsert([1])
    first = live.commit(repository, "op-1", None)
    _, _, row, state = live.shards["items"][0].rows[1]
    again = replace(
        states([1], 9, 0.0),
        ordinals=np.zeros(1, np.uint32),
        rows=np.frombuffer(row, np.float32)[None],
        state=np.frombuffer(state, np.float32)[None],
    )
    live.deltas["items"][0].add(again)
    second = live.commit(repository, "op-2", first)

    (found,) = diff(*(TableReader(repository.cache, each, "items") for each in (first, second)))

    assert found.changed.tolist() == []


def test_versions_of_two_lines_are_compared_by_id(repository: Repository) -> None:
    live = Live()
    live.upsert(range(20))
    root = live.commit(repository, "op-0", None)
    create_branch(repository, "exp", root.version)
    fork = Live()
    fork.shards = {
        name: [replace(each, rows=dict(each.rows)) for each in shards] for name, shards in live.shards.items()
    }
    live.upsert([100, 1])
    fork.upsert([200, 100])
    main, exp = live.commit(repository, "op-1", root), fork.commit(repository, "op-2", root, branch="exp")

    found = list(diff(*(TableReader(repository.cache, each, "items") for each in (main, exp))))

    old, new = live.contents()["items"], fork.contents()["items"]
    differing = {row for row in old.keys() & new.keys() if old[row][2:] != new[row][2:]}
    assert {row for each in found for row in each.changed.tolist()} == differing
    assert {row for each in found for row in each.added.tolist()} == {200}


def test_blame_names_the_versions_that_changed_a_row(repository: Repository) -> None:
    live = Live()
    version: Manifest | None = None
    for number, (changed, deleted) in enumerate([([1, 2], []), ([2], []), ([1], []), ([], [1]), ([1], [])]):
        live.upsert(changed)
        live.delete(deleted)
        version = live.commit(repository, f"op-{number}", version)
    assert version is not None

    told = [(each.version, each.kind) for each in blame(repository, version, "items", 1)]

    assert told == [
        ("V-R-1.4", "born"),
        ("V-R-1.3", "removed"),
        ("V-R-1.2", "changed"),
        ("V-R-1.0", "born"),
    ]
    assert explain(repository, version, "items", 77) is None


def test_a_table_that_a_version_lacks_is_named(repository: Repository) -> None:
    version = Live().commit(repository, "op-1", None)

    with pytest.raises(UnknownTableError, match="no table 'users'; it has items"):
        TableReader(repository.cache, version, "users")


# -- labels


def test_a_tag_moves_and_goes(repository: Repository) -> None:
    live = Live()
    first = live.commit(repository, "op-0", None)
    second = live.commit(repository, "op-1", first)
    set_tag(repository, "release", first.version)
    set_tag(repository, "release", second.version)

    assert tags(repository) == {"release": second.version}
    remove_tag(repository, "release")
    assert tags(repository) == {}
    with pytest.raises(UnknownVersionError, match="release"):
        remove_tag(repository, "release")


def test_labels_point_to_what_exists(repository: Repository) -> None:
    with pytest.raises(UnknownVersionError):
        set_tag(repository, "release", "V-R-1.0")
    with pytest.raises(UnknownVersionError):
        create_branch(repository, "exp", "V-R-1.0")


def test_one_name_is_a_branch_or_a_tag_and_a_branch_only_once(repository: Repository) -> None:
    version = Live().commit(repository, "op-0", None).version
    create_branch(repository, "exp", version)
    set_tag(repository, "release", version)

    for name in ("exp", "main", "release"):
        with pytest.raises(VersionHeldError):
            create_branch(repository, name, version)
    for name in ("exp", "main"):
        with pytest.raises(VersionHeldError):
            set_tag(repository, name, version)
    remove_branch(repository, "exp")
    with pytest.raises(VersionHeldError, match="existed"):
        create_branch(repository, "exp", version)


# -- removal


def three(repository: Repository) -> tuple[Live, list[Manifest]]:
    live = Live()
    versions: list[Manifest] = []
    live.upsert(range(10))
    for number in range(3):
        live.upsert([number, 5])
        versions.append(live.commit(repository, f"op-{number}", versions[-1] if versions else None))
    return live, versions


def test_what_is_held_is_not_removed(repository: Repository, clock: Clock) -> None:
    _, (first, second, last) = three(repository)
    set_tag(repository, "release", first.version)
    pin(repository, "ads", second.version, clock.time + 100)

    for version, holder in [(first, "tag release"), (second, "pin of ads"), (last, "head of branch main")]:
        with pytest.raises(VersionHeldError, match=holder):
            retire(repository, [version.version])
    assert removable(repository, []) == []
    unpin(repository, "ads", second.version)
    assert removable(repository, []) == [second.version]
    with pytest.raises(VersionHeldError, match="the log"):
        retire(repository, [second.version], protected=[second.version])
    retire(repository, [second.version])
    with pytest.raises(UnknownVersionError, match="was removed"):
        repository.manifest(second.version)


def test_a_pin_that_ran_out_holds_nothing(repository: Repository, clock: Clock) -> None:
    _, (first, *_) = three(repository)
    pin(repository, "ads", first.version, clock.time + 100)
    clock.time += 101

    retire(repository, [first.version])


def test_an_object_goes_after_two_marks_and_what_others_need_stays(
    repository: Repository, store: FakeObjects, clock: Clock
) -> None:
    live, (first, second, last) = three(repository)
    retire(repository, [first.version, second.version])
    keys = set(store.objects)
    for _ in range(3):
        assert collect(repository).delete == ()
        clock.time += GRACE / 2
    assert keys <= set(store.objects)
    clock.time += GRACE
    collect(repository)
    clock.time += GRACE + 1
    collect(repository)

    assert first.key not in store.objects
    assert second.key not in store.objects
    assert f"versions/{first.version}/tomb" in store.objects
    left = {key for key in store.objects if key.startswith("tables/")}
    assert left == set(repository.manifest(last.version).objects())
    assert read_contents(repository, last) == live.contents()
    assert fsck(repository) == []


def test_a_plan_changes_nothing(repository: Repository, store: FakeObjects, clock: Clock) -> None:
    _, (first, *_) = three(repository)
    retire(repository, [first.version])
    clock.time += 2 * GRACE
    before = dict(store.objects)

    plan = plan_collection(repository)

    assert store.objects == before
    assert plan.marked
    assert plan.delete == ()


def test_nothing_is_collected_while_a_manifest_cannot_be_read(
    repository: Repository, store: FakeObjects, clock: Clock
) -> None:
    _, (first, second, _) = three(repository)
    retire(repository, [first.version])
    data, modified = store.objects[second.key]
    store.objects[second.key] = (data[:-1], modified)
    clock.time += 2 * GRACE

    plan = collect(opened(store, clock))

    assert plan.damaged == (second.key,)
    assert plan.delete == ()


def test_a_name_is_never_given_again(repository: Repository, store: FakeObjects, clock: Clock) -> None:
    live = Live()
    root = live.commit(repository, "op-0", None)
    create_branch(repository, "exp", root.version)
    fork = Live().commit(repository, "op-1", root, branch="exp", scenario="W")
    remove_branch(repository, "exp")
    retire(repository, [fork.version])
    for _ in range(3):
        clock.time += GRACE + 1
        collect(repository)
    create_branch(repository, "exp2", root.version)

    assert fork.key not in store.objects
    assert Live().commit(repository, "op-2", root, branch="exp2", scenario="W").version == "V-W-2.0"


def test_a_parent_branch_can_go_while_its_children_live(repository: Repository, clock: Clock) -> None:
    live = Live()
    live.upsert(range(5))
    root = live.commit(repository, "op-0", None)
    create_branch(repository, "exp", root.version)
    fork = live.commit(repository, "op-1", root, branch="exp")
    create_branch(repository, "child", fork.version)
    live.upsert([9])
    child = live.commit(repository, "op-2", fork, branch="child")
    remove_branch(repository, "exp")
    remove_branch_begin = fork.version  # still the begin of `child`
    with pytest.raises(VersionHeldError):
        retire(repository, [remove_branch_begin])
    for _ in range(3):
        clock.time += GRACE + 1
        collect(repository)

    assert read_contents(repository, child) == live.contents()
    assert fsck(repository) == []


# -- damage


def test_a_missing_object_is_named_and_the_rest_stays_readable(
    repository: Repository, store: FakeObjects, clock: Clock
) -> None:
    live, (first, _, last) = three(repository)
    lost = last.tables["items"].parts[0].segments[-1].ref.key
    del store.objects[lost]
    again = opened(store, clock)

    with pytest.raises(ObjectMissingError, match=lost):
        read_contents(again, last)
    assert [each.object for each in fsck(again)] == [lost]
    assert read_contents(again, first)
    reader = TableReader(again.cache, last, "items")
    assert sum(len(block) for block in reader.blocks(1)) == len(live.shards["items"][1].rows)


def test_a_torn_manifest_is_no_version_to_build_on(
    repository: Repository, store: FakeObjects, clock: Clock
) -> None:
    _, (_, second, last) = three(repository)
    data, modified = store.objects[last.key]
    store.objects[last.key] = (data[: len(data) // 2], modified)
    again = opened(store, clock)

    with pytest.raises(DamagedObjectError, match=last.key):
        head(again, "main")
    assert read_contents(again, again.manifest(second.version))
    assert last.key in {each.object for each in fsck(again)}


def test_a_gap_in_the_log_is_found(repository: Repository, store: FakeObjects, clock: Clock) -> None:
    _, (_, _, last) = three(repository)
    table = last.tables["items"]
    part = replace(table.parts[0], begin=table.parts[0].begin + 1)
    forged = replace(last, tables={"items": replace(table, parts=(part, *table.parts[1:]))})
    store.objects[last.key] = (write_manifest(forged), 0.0)

    found = fsck(opened(store, clock))

    assert [each.code for each in found] == ["gap"]


def test_a_tag_to_nowhere_is_found(repository: Repository, store: FakeObjects) -> None:
    _, (first, *_) = three(repository)
    set_tag(repository, "release", first.version)
    del store.objects[first.key]

    assert ("label", "tags/release") in {(each.code, each.object) for each in fsck(repository)}


def test_a_folder_of_another_group_or_format_is_refused(store: FakeObjects, clock: Clock) -> None:
    opened(store, clock)
    with pytest.raises(StoreFormatError, match="group 'g', not of 'other'"):
        open_repository(store, "other")
    changed = store.get("format.json").replace(b'"format":1', b'"format":2')
    store.objects["format.json"] = (changed, 0.0)
    with pytest.raises((StoreFormatError, DamagedObjectError)):
        opened(store, clock)
