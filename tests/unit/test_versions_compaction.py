"""Compaction and tiers told as behaviours: the same versions, stored otherwise."""

from __future__ import annotations

import copy
from dataclasses import replace

import numpy as np
import pytest

from driftline.errors import DeltaError, InputError, LossyVersionError, VersionHeldError
from driftline.ids import lsn_offset
from driftline.versions import (
    Draft,
    Manifest,
    Repository,
    TableReader,
    collect,
    commit,
    compact,
    create_branch,
    diff,
    explain,
    fsck,
    head,
    merge,
    pin,
    plan_compaction,
    remove_branch,
    retire,
    set_tag,
    tags,
    undeploy,
    usage,
)
from driftline.versions.labels import deploy
from driftline.versions.manifest import write_manifest
from driftline.versions.rewriting import Limits
from driftline.versions.source import open_part
from driftline.versions.tiers import EXACT, INT8, INT16
from tests.support.object_store_fake import FakeObjects
from tests.support.versioning import GRACE, Clock, Contents, Live, opened, read_contents

FORCED = Limits(segments=2)
"""Two segments a version are too many: everything is merged."""


class Example:
    """The worked example of differential storage: V1 writes u1..u5, V2 changes u1..u3, V3 changes u2."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.store = FakeObjects(self.clock)
        self.live = Live(shards=1)
        self.versions: list[Manifest] = []
        self.contents: list[Contents] = []
        for changed in ([1, 2, 3, 4, 5], [1, 2, 3], [2]):
            self.live.upsert(changed)
            self.commit()

    @property
    def repository(self) -> Repository:
        """With nothing cached."""
        return opened(self.store, self.clock)

    def commit(self) -> None:
        parent = self.now(-1) if self.versions else None
        self.versions.append(self.live.commit(self.repository, f"op-{len(self.versions)}", parent))
        self.contents.append(self.live.contents())

    def collect(self) -> None:
        """Collect until nothing is left to collect."""
        for _ in range(4):
            self.clock.time += GRACE + 1
            collect(self.repository)

    def now(self, number: int) -> Manifest:
        return self.repository.manifest(self.versions[number].version)

    def check(self, *numbers: int) -> None:
        """See that these versions, by number, are what was committed."""
        repository = self.repository
        for number in numbers:
            assert read_contents(repository, self.now(number)) == self.contents[number]
        assert fsck(repository) == []

    def stored(self) -> int:
        """Rows in all segments in the store that any version reads."""
        manifests = [self.repository.manifest(name) for name in self.repository.listing().names()]
        parts = [part for each in manifests for table in each.tables.values() for part in table.parts]
        return sum(each.rows for each in {s.ref.key: s for part in parts for s in part.segments}.values())


@pytest.fixture
def example() -> Example:
    return Example()


# -- compaction without a change of number [EM10]


def test_nine_rows_for_fifteen_visible_after_compaction_collection_a_branch_and_a_merge(
    example: Example,
) -> None:
    assert example.stored() == 9
    compact(example.repository, limits=FORCED)
    example.collect()
    assert example.stored() == 9
    assert sum(len(each["items"]) for each in example.contents) == 15
    example.check(0, 1, 2)

    create_branch(example.repository, "exp", example.versions[2].version)
    side = Live(shards=1)
    side.shards = copy.deepcopy(example.live.shards)
    side.upsert([5])
    aside = side.commit(example.repository, "side", example.now(2), branch="exp", scenario="W")
    assert example.stored() == 10, "a branch adds the row that it changes"
    example.live.upsert([4])
    example.commit()
    merged = merge(example.repository, aside.version).manifest
    assert merged is not None
    compact(example.repository, limits=FORCED)
    example.collect()

    assert example.stored() == 12, "and main u4; u5 is written once more, into the segment of the merge"
    found = read_contents(example.repository, example.repository.manifest(merged.version))["items"]
    assert found[5][1:] == side.contents()["items"][5][1:]
    assert {row: found[row] for row in (1, 2, 3, 4)} == {
        row: example.contents[3]["items"][row] for row in (1, 2, 3, 4)
    }
    example.check(0, 1, 2, 3)


@pytest.mark.parametrize(
    ("row", "at", "written_by"),
    [
        *((1, 1, 1), (2, 1, 1), (3, 1, 1), (4, 1, 1), (5, 1, 1)),
        *((1, 2, 2), (2, 2, 2), (3, 2, 2), (4, 2, 1), (5, 2, 1)),
        *((1, 3, 2), (2, 3, 3), (3, 3, 2), (4, 3, 1), (5, 3, 1)),
    ],
)
def test_after_compaction_a_row_is_still_traced_to_the_version_that_wrote_it(
    example: Example, row: int, at: int, written_by: int
) -> None:
    compact(example.repository, limits=Limits(segments=0))
    explanation = explain(example.repository, example.now(at - 1), "items", row)

    assert explanation is not None
    assert explanation.written_by == example.versions[written_by - 1].version
    assert explanation.log_range == (written_by - 1, written_by)


def test_a_row_whose_writer_is_gone_names_its_event_and_no_version(example: Example) -> None:
    retire(example.repository, [example.versions[0].version])
    compact(example.repository, limits=Limits(segments=0))
    explanation = explain(example.repository, example.now(2), "items", 4)

    assert explanation is not None
    assert (explanation.written_by, explanation.log_range) == ("", None)
    assert explanation.offset == lsn_offset(example.contents[0]["items"][4][1])


def test_a_version_keeps_its_number_its_rows_and_its_place(example: Example) -> None:
    before = example.now(2)
    done = compact(example.repository, limits=FORCED)
    after = example.now(2)

    assert done.versions
    assert example.repository.listing().names() == [each.version for each in example.versions]
    assert (after.rev, after.txn, after.created) == (1, before.txn, before.created)
    assert after.tables["items"].parts[0].place == before.tables["items"].parts[0].place
    example.check(0, 1, 2)


def test_space_that_removed_versions_alone_needed_is_freed(example: Example) -> None:
    retire(example.repository, [each.version for each in example.versions[:2]])
    example.collect()
    assert example.stored() == 9, "each segment still has a row of V3"

    planned = plan_compaction(example.repository)
    done = compact(example.repository)
    example.collect()

    assert (planned.segments, planned.rows) == (done.segments, done.rows) == (1, 2)
    assert example.stored() == 6
    assert not [key for key in example.store.objects if "seg" in key and "/op-0-" in key]
    example.check(2)


def test_a_second_compaction_has_nothing_to_do(example: Example) -> None:
    compact(example.repository, limits=FORCED)
    before = set(example.store.objects)

    assert compact(example.repository, limits=FORCED).versions == ()
    assert set(example.store.objects) == before


def test_a_plan_changes_nothing(example: Example) -> None:
    before = set(example.store.objects)

    assert plan_compaction(example.repository, limits=FORCED).versions
    assert set(example.store.objects) == before


def test_rows_that_versions_share_stay_shared(example: Example) -> None:
    compact(example.repository, limits=FORCED)
    repository = example.repository
    readers = [TableReader(repository.cache, example.now(each), "items") for each in (1, 2)]
    (part,) = diff(*readers)

    assert part.changed.tolist() == [2]
    assert example.stored() == 9


def test_two_compactions_at_once_leave_one_revision_and_no_damage(example: Example) -> None:
    class Racing(FakeObjects):
        def create(self, key: str, data: bytes) -> None:
            if key.endswith("/m-000001") and not raced:
                raced.append(key)
                compact(example.repository, limits=FORCED)
            super().create(key, data)

    raced: list[str] = []
    racing = Racing(example.clock)
    racing.objects = example.store.objects
    lost = compact(opened(racing, example.clock), limits=FORCED)
    example.collect()

    assert raced
    assert lost.versions == ()
    assert [example.now(number).rev for number in range(3)] == [0, 1, 1]
    example.check(0, 1, 2)


def test_a_version_of_a_lossy_class_is_lossy_though_all_its_rows_are_still_shared(example: Example) -> None:
    manifest = example.now(1)
    compact(example.repository, {manifest.version: INT8})
    after = example.now(1)

    assert {each.tier for each in after.tables["items"].parts[0].segments} == {EXACT}
    with pytest.raises(LossyVersionError, match=r"V-R-1\.1 is stored in tier int8"):
        open_part(example.repository, manifest.version, "items", 0)


def test_training_goes_on_from_a_compacted_head(example: Example) -> None:
    compact(example.repository, limits=FORCED)
    example.live.upsert([1, 7])
    example.live.delete([4])
    parent = example.now(2)
    example.versions.append(example.live.commit(example.repository, "op-3", parent))
    example.contents.append(example.live.contents())
    compact(example.repository, limits=FORCED)
    example.collect()

    example.check(0, 1, 2, 3)


# -- commits in flight


def test_a_commit_in_flight_outlives_a_compaction_and_collections(example: Example) -> None:
    example.live.upsert([3])
    repository = example.repository
    draft = example.live.draft(repository, "op-3", example.versions[2])
    compact(example.repository, limits=Limits(segments=0))
    collect(example.repository)
    example.clock.time += GRACE / 3
    collect(example.repository)
    example.versions.append(commit(repository, draft))
    example.contents.append(example.live.contents())
    example.collect()

    example.check(0, 1, 2, 3)


def test_a_version_built_on_what_compaction_replaced_long_ago_is_sealed_again(example: Example) -> None:
    stale = example.versions[2]
    compact(example.repository, limits=Limits(segments=0))
    example.clock.time += GRACE
    example.live.upsert([3])
    with pytest.raises(DeltaError, match=r"op-3 was built on a revision of V-R-1\.2"):
        commit(example.repository, example.live.draft(example.repository, "op-3", stale))

    part = stale.tables["items"].parts[0]
    now = example.repository.current(stale.version, "items", 0, part)
    assert now == example.now(2).tables["items"].parts[0] != part
    example.versions.append(example.live.commit(example.repository, "op-3", example.now(2)))
    example.contents.append(example.live.contents())
    example.check(0, 1, 2, 3)


def test_a_collected_revision_leaves_the_lock_of_the_name(example: Example) -> None:
    compact(example.repository, limits=FORCED)
    example.collect()

    draft = example.live.draft(example.repository, "op-2", example.now(1))
    assert commit(example.repository, draft).version == example.versions[2].version
    assert example.repository.listing().names() == [each.version for each in example.versions]


# -- tiers


def blurred(example: Example, tier: str = INT8) -> Manifest:
    """Put the first version into a tier."""
    compact(example.repository, {example.versions[0].version: tier})
    return example.now(0)


@pytest.mark.parametrize("tier", [INT16, INT8])
def test_an_old_version_takes_less_room_and_its_largest_error_is_recorded(
    example: Example, tier: str
) -> None:
    manifest = blurred(example, tier)
    (lossy,) = [each for each in manifest.tables["items"].parts[0].segments if each.tier == tier]
    found = read_contents(example.repository, manifest)["items"]
    off = [
        np.abs(np.frombuffer(found[row][2], np.float32) - np.frombuffer(value[2], np.float32)).max()
        for row, value in example.contents[0]["items"].items()
    ]

    assert manifest.retention == tier
    assert lossy.rows == 3, "u1..u3 are shown by no other version; u4 and u5 are shared, and stay exact"
    assert max(off) == pytest.approx(lossy.error)
    assert [value[:2] for value in found.values()] == [example.contents[0]["items"][row][:2] for row in found]
    example.check(1, 2)


def test_the_error_is_recorded_where_people_look(example: Example) -> None:
    manifest = blurred(example)
    found = usage(example.repository)

    assert found.versions[0].error == max(each.error for each in manifest.tables["items"].parts[0].segments)
    assert [each.error > 0 for each in found.versions] == [True, False, False]
    assert {each.tier: each.rows for each in found.tiers} == {EXACT: 2 + 3 + 1, INT8: 3}


def test_a_version_blurred_twice_says_how_far_it_is_off_in_all(example: Example) -> None:
    once = max(each.error for each in blurred(example, INT16).tables["items"].parts[0].segments)
    segments = blurred(example, INT8).tables["items"].parts[0].segments
    found = read_contents(example.repository, example.now(0))["items"]
    worst = max(
        float(np.abs(np.frombuffer(found[row][2], np.float32) - np.frombuffer(value[2], np.float32)).max())
        for row, value in example.contents[0]["items"].items()
    )

    assert {each.tier for each in segments} == {EXACT, INT8}
    assert max(each.error for each in segments) >= max(worst, once)


def test_no_tier_leads_back(example: Example) -> None:
    blurred(example)
    with pytest.raises(InputError, match=r"V-R-1\.0 is stored as int8: int16 would need bits"):
        compact(example.repository, {example.versions[0].version: INT16})
    with pytest.raises(InputError, match="tier 'int4': one of exact, int16, int8"):
        compact(example.repository, {example.versions[0].version: "int4"})


def test_a_version_that_something_holds_stays_exact(example: Example) -> None:
    repository, version = example.repository, example.versions[1].version

    def refused(holder: str) -> None:
        with pytest.raises(VersionHeldError, match=holder):
            compact(example.repository, {version: INT8})

    with pytest.raises(VersionHeldError, match=r"V-R-1\.2 stays exact: it is held by head of branch main"):
        compact(example.repository, {example.versions[2].version: INT8})
    pin(repository, "ads", version, example.clock.time + 10)
    refused("pin of ads")
    example.clock.time += 20
    create_branch(repository, "exp", version)
    refused("branch exp")
    remove_branch(repository, "exp")
    deploy(repository, version)
    refused("deployment")
    undeploy(repository, version)
    set_tag(repository, "release", version)
    refused("tag release")
    example.check(0, 1, 2)


def test_a_version_that_the_log_goes_back_to_stays_exact(example: Example) -> None:
    with pytest.raises(VersionHeldError, match="held by the log"):
        compact(example.repository, {example.versions[0].version: INT8}, lambda: ["V-R-1.0"])


def test_a_version_that_is_given_a_hold_meanwhile_is_exact_again(example: Example) -> None:
    asked = iter([[], ["V-R-1.0"]])
    done = compact(example.repository, {example.versions[0].version: INT8}, lambda: next(asked))

    assert dict(done.held) == {"V-R-1.0": "the log: it can still be asked for"}
    assert (example.now(0).rev, example.now(0).retention, done.tiers) == (2, EXACT, {})
    example.collect()
    example.check(0, 1, 2)


def test_what_needs_the_bits_of_a_lossy_version_is_refused_by_name(example: Example) -> None:
    version = blurred(example).version
    said = r"version V-R-1\.0 is stored in tier int8, up to .* off: .* {}"

    with pytest.raises(LossyVersionError, match=said.format("to restore, replay or deploy it")):
        open_part(example.repository, version, "items", 0)
    with pytest.raises(LossyVersionError, match=said.format("a branch")):
        create_branch(example.repository, "exp", version)
    with pytest.raises(LossyVersionError, match=said.format("a merge")):
        merge(example.repository, version)
    example.live.shards["items"][0].rows = dict(example.contents[0]["items"])
    draft = example.live.draft(example.repository, "op-9", example.now(2), base=example.now(0))
    with pytest.raises(LossyVersionError, match=r"op-9: rows of items .* are in tier int8"):
        commit(example.repository, draft)
    assert "exp" not in tags(example.repository)


def test_blurred_rows_that_did_not_change_are_no_difference(example: Example) -> None:
    example.live.upsert([1])
    example.commit()
    retire(example.repository, [example.versions[1].version])
    compact(example.repository, {"V-R-1.0": INT8, "V-R-1.2": INT8}, limits=FORCED)
    repository = example.repository
    readers = [TableReader(repository.cache, example.now(each), "items") for each in (2, 3)]
    (part,) = diff(*readers)

    assert part.changed.tolist() == [1]


def test_fsck_names_a_lossy_segment_in_an_exact_version_and_a_revision_that_says_something_else(
    example: Example,
) -> None:
    lossy = blurred(example)
    wrong = replace(lossy, rev=2, retention=EXACT)
    example.store.create(wrong.key, write_manifest(wrong))
    other = replace(example.now(1), rev=2, op=7)
    example.store.create(other.key, write_manifest(other))

    assert [(each.code, each.object) for each in fsck(example.repository)] == [
        ("revised", "versions/V-R-1.1/m-000002"),
        ("tier", "versions/V-R-1.0/m-000002 items:0"),
    ]


# -- what is known of other stores as their trouble


def test_a_parent_branch_can_be_removed_while_its_children_live(example: Example) -> None:
    repository = example.repository
    create_branch(repository, "parent", example.versions[2].version)
    side = Live(shards=1)
    side.shards = copy.deepcopy(example.live.shards)
    side.upsert([1, 9])
    middle = side.commit(repository, "p-1", example.now(2), branch="parent", scenario="W")
    create_branch(repository, "child", middle.version)
    side.upsert([2])
    last = side.commit(repository, "c-1", middle, branch="child", scenario="N")
    contents = side.contents()
    remove_branch(repository, "parent")
    with pytest.raises(VersionHeldError, match="begin of branch child"):
        retire(repository, [middle.version])
    compact(example.repository, limits=FORCED)
    example.collect()

    found = head(example.repository, "child")
    assert found is not None
    assert found.version == last.version
    assert read_contents(example.repository, found) == contents
    example.check(0, 1, 2)


def test_cleanup_between_the_steps_of_a_merge_takes_nothing_of_it(example: Example) -> None:
    create_branch(example.repository, "exp", example.versions[1].version)
    side = Live(shards=1)
    side.shards = copy.deepcopy(example.live.shards)
    side.upsert([5])
    aside = side.commit(example.repository, "side", example.now(1), branch="exp", scenario="W")

    class Cleaning(FakeObjects):
        def create(self, key: str, data: bytes) -> None:
            if key.startswith(("tables/", "versions/")):
                collect(example.repository)
            super().create(key, data)

    cleaning = Cleaning(example.clock)
    cleaning.objects = example.store.objects
    merged = merge(opened(cleaning, example.clock), aside.version).manifest
    assert merged is not None
    example.collect()

    assert set(read_contents(example.repository, merged)["items"]) == {1, 2, 3, 4, 5}
    assert fsck(example.repository) == []


def test_manifests_do_not_grow_with_history_when_each_version_changes_other_rows() -> None:
    clock = Clock()
    store = FakeObjects(clock)
    repository = opened(store, clock)
    live, version, sizes = Live(shards=1), None, []
    rng = np.random.default_rng(5)
    live.upsert(range(300))
    for number in range(120):
        live.upsert(rng.choice(300, 6, replace=False).tolist())
        tables = live.sealed(
            repository, f"op-{number}", version, repository.put, owner_every=4, most_segments=16
        )
        parents = (version.version,) if version is not None else ()
        version = commit(repository, Draft(f"op-{number}", "R", tables, parents=parents))
        live.forget_changes()
        sizes.append(len(version.tables["items"].parts[0].segments))

    assert version is not None
    assert max(sizes) <= 16 + 5
    assert max(len(data) for key, (data, _) in store.objects.items() if "/m-" in key) < 8_000
    assert read_contents(opened(store, clock), version) == live.contents()
