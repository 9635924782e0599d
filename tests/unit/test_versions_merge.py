"""Three-way merges told as behaviours: by id, with resolvers, as versions with two parents."""

from __future__ import annotations

import copy
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from driftline.errors import InputError, UnknownVersionError, VersionRaceError
from driftline.ids import lsn
from driftline.versions import (
    Manifest,
    Repository,
    Resolver,
    TableReader,
    commit,
    create_branch,
    diff,
    explain,
    fsck,
    head,
    merge,
    plan_merge,
    read_all,
    remove_branch,
    retire,
    weigh,
)
from driftline.versions.history import newest
from driftline.versions.tiers import INT8, INT16, dequantise, quantise
from tests.support.object_store_fake import FakeObjects
from tests.support.versioning import GRACE, Clock, Live, Row, opened, read_contents

IDS = range(1, 9)


class Fork:
    """Rows 1 to 8 at V-R-1.0; then main, and branch exp in scenario W."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.store = FakeObjects(self.clock)
        self.ours, self.theirs = Live(), Live()
        self.ours.upsert(IDS)
        self.base = self.ours.commit(self.repository, "op-1", None, op=1)
        self.theirs.shards = copy.deepcopy(self.ours.shards)
        create_branch(self.repository, "exp", self.base.version)
        self.txn = 1

    @property
    def repository(self) -> Repository:
        """With nothing cached."""
        return opened(self.store, self.clock)

    def commit(self, branch: str) -> Manifest:
        """Commit what changed in a line."""
        self.txn += 1
        live = self.ours if branch == "main" else self.theirs
        parent = head(self.repository, branch)
        scenario = "R" if branch == "main" else "W"
        for shard in live.shards["items"]:
            shard.next += 1  # the barrier
        return live.commit(
            self.repository, f"op-{self.txn}", parent, branch=branch, scenario=scenario, op=self.txn
        )

    def merged(self, **more: object) -> tuple[Manifest, dict[int, Row]]:
        """Merge exp into main; return the version made and its rows."""
        tip = head(self.repository, "exp")
        assert tip is not None
        done = merge(self.repository, tip.version, **more)  # type: ignore[arg-type]
        assert done.manifest is not None
        assert fsck(self.repository) == []
        return done.manifest, read_contents(self.repository, done.manifest)["items"]


@pytest.fixture
def fork() -> Fork:
    return Fork()


def row_of(value: Row) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
    return np.frombuffer(value[2], np.float32)


def state_of(value: Row) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
    return np.frombuffer(value[3], np.float32)


def test_what_one_line_alone_changed_is_that_lines(fork: Fork) -> None:
    fork.ours.upsert([1, 20])
    fork.ours.delete([5])
    fork.commit("main")
    fork.theirs.upsert([2, 30])
    fork.theirs.delete([6])
    fork.commit("exp")
    manifest, rows = fork.merged()
    ours, theirs = fork.ours.contents()["items"], fork.theirs.contents()["items"]

    assert (manifest.version, manifest.parents) == ("V-R-1.2", ("V-R-1.1", "V-W-1.0"))
    assert set(rows) == {1, 2, 3, 4, 7, 8, 20, 30}
    assert {row: rows[row] for row in (1, 3, 4, 7, 8, 20)} == {row: ours[row] for row in (1, 3, 4, 7, 8, 20)}
    assert {row: rows[row][1:] for row in (2, 30)} == {row: theirs[row][1:] for row in (2, 30)}
    assert manifest.metadata["merge"] == {"ancestor": "V-R-1.0", "resolver": "latest", "conflicts": 0}


def test_ordinals_of_two_lines_do_not_meet(fork: Fork) -> None:
    fork.ours.upsert(range(20, 30))
    fork.commit("main")
    fork.theirs.upsert(range(40, 50))  # the same ordinals name other ids here
    fork.commit("exp")
    manifest, rows = fork.merged()
    reader = TableReader(fork.repository.cache, manifest, "items")

    for shard in range(reader.shards):
        ordinals = [int(each) for block in reader.blocks(shard) for each in block.ordinals]
        assert len(set(ordinals)) == len(ordinals)
    assert set(rows) == {*IDS, *range(20, 30), *range(40, 50)}


def test_versions_of_different_lines_are_compared_by_id(fork: Fork) -> None:
    fork.ours.upsert([1, 2, *range(20, 25)])
    fork.ours.delete([7])
    ours = fork.commit("main")
    fork.theirs.upsert([2, 3, *range(30, 35)])
    fork.theirs.delete([8])
    theirs = fork.commit("exp")
    mine, other = fork.ours.contents()["items"], fork.theirs.contents()["items"]
    readers = [TableReader(fork.repository.cache, each, "items") for each in (ours, theirs)]
    parts = list(diff(*readers))

    assert sorted(row for each in parts for row in each.added.tolist()) == [7, *range(30, 35)]
    assert sorted(row for each in parts for row in each.removed.tolist()) == [8, *range(20, 25)]
    changed = {row: d for each in parts for row, d in zip(each.changed.tolist(), each.distance, strict=True)}
    expected = [row for row in mine.keys() & other.keys() if mine[row][2:] != other[row][2:]]
    assert sorted(changed) == sorted(expected)
    for row, distance in changed.items():
        assert distance == pytest.approx(np.linalg.norm(row_of(other[row]) - row_of(mine[row])))


def test_conflicts_are_listed_and_a_plan_changes_nothing(fork: Fork) -> None:
    fork.ours.upsert([1, 2, 20])
    fork.ours.delete([3, 8])
    fork.commit("main")
    fork.theirs.upsert([1, 3, 20, 21])
    fork.theirs.upsert([1, 20])
    fork.theirs.delete([2, 8])
    tip = fork.commit("exp")
    before = set(fork.store.objects)
    planned = plan_merge(fork.repository, tip.version)
    (table,) = planned.tables

    assert (planned.ours, planned.theirs, planned.ancestor) == ("V-R-1.1", "V-W-1.0", "V-R-1.0")
    assert (table.changed.tolist(), table.kept.tolist(), table.revived.tolist()) == ([1, 20], [2], [3])
    assert (table.taken.tolist(), table.removed.tolist()) == ([21], [])
    assert planned.manifest is None
    assert set(fork.store.objects) == before


def test_rows_that_both_lines_changed_alike_are_no_conflict(fork: Fork) -> None:
    for live, branch in ((fork.ours, "main"), (fork.theirs, "exp")):
        live.upsert([1, 2])
        fork.commit(branch)
    tip = head(fork.repository, "exp")
    assert tip is not None

    assert plan_merge(fork.repository, tip.version).tables[0].conflicts == 0


def conflict(fork: Fork, times: int = 1) -> tuple[Row, Row]:
    """Change row 1 in one version of main, and in some of exp; return both rows."""
    fork.ours.upsert([1])
    fork.commit("main")
    fork.theirs.upsert([1])
    for _ in range(times):
        fork.theirs.upsert([2, 1])
        fork.commit("exp")
    return fork.ours.contents()["items"][1], fork.theirs.contents()["items"][1]


def test_latest_takes_the_row_of_the_later_event(fork: Fork) -> None:
    _, theirs = conflict(fork, 2)
    _, rows = fork.merged(resolver=Resolver.LATEST)

    assert rows[1][1:] == theirs[1:]


def test_mean_weighs_by_the_versions_in_which_each_line_trained_the_row(fork: Fork) -> None:
    ours, theirs = conflict(fork, 3)
    manifest, rows = fork.merged(resolver=Resolver.MEAN)

    assert row_of(rows[1]) == pytest.approx(0.25 * row_of(ours) + 0.75 * row_of(theirs))
    assert state_of(rows[1]) == pytest.approx(0.25 * state_of(ours) + 0.75 * state_of(theirs))
    place = manifest.tables["items"].parts[0].place
    assert place.number("gen") == 1
    assert rows[1][1] not in (ours[1], theirs[1]), "other bits need another LSN"


def test_task_arithmetic_adds_what_both_lines_have_moved(fork: Fork) -> None:
    was = fork.ours.contents()["items"][1]
    ours, theirs = conflict(fork)
    _, rows = fork.merged(resolver=Resolver.TASK, scale=0.5)
    moved = (row_of(ours) - row_of(was)) + (row_of(theirs) - row_of(was))

    assert row_of(rows[1]) == pytest.approx(row_of(was) + 0.5 * moved)
    assert state_of(rows[1]) == pytest.approx((state_of(ours) + state_of(theirs)) / 2)


def test_a_row_born_in_both_lines_has_nothing_to_be_added_to(fork: Fork) -> None:
    fork.ours.upsert([20])
    fork.commit("main")
    fork.theirs.upsert([21, 20])
    fork.theirs.upsert([20])
    fork.commit("exp")
    a, b = fork.ours.contents()["items"][20], fork.theirs.contents()["items"][20]
    _, rows = fork.merged(resolver=Resolver.TASK)

    assert row_of(rows[20]) == pytest.approx((row_of(a) + row_of(b)) / 2)


@pytest.mark.parametrize("scale", [0.0, -1.0, float("nan"), float("inf")])
def test_a_scale_that_is_none_is_refused(fork: Fork, scale: float) -> None:
    conflict(fork)
    with pytest.raises(InputError, match="a number above 0"):
        fork.merged(resolver=Resolver.TASK, scale=scale)


def test_a_row_that_would_not_be_finite_is_named(fork: Fork) -> None:
    conflict(fork)
    with pytest.raises(InputError, match="id 1: task with scale 1e"):
        fork.merged(resolver=Resolver.TASK, scale=1e300)


def test_a_merge_repeated_is_the_same_version(fork: Fork) -> None:
    conflict(fork)
    manifest, _ = fork.merged()
    again, _ = fork.merged()

    assert again == manifest
    assert fork.repository.listing().names() == ["V-R-1.0", "V-R-1.1", "V-R-1.2", "V-W-1.0"]


def test_a_second_merge_begins_where_the_first_ended(fork: Fork) -> None:
    conflict(fork)
    first, _ = fork.merged()
    fork.theirs.upsert([4])
    tip = fork.commit("exp")
    planned = plan_merge(fork.repository, tip.version)

    assert planned.ours == first.version
    assert planned.ancestor == "V-W-1.0"
    assert planned.tables[0].taken.tolist() == [4]
    assert planned.tables[0].conflicts == 0


def test_a_merge_is_drawn_and_weighed_as_a_version_with_two_parents(fork: Fork) -> None:
    conflict(fork)
    manifest, _ = fork.merged()
    weight = weigh(manifest, fork.repository.manifest("V-R-1.1"))

    assert read_all(fork.repository)[0].version == manifest.version
    assert weight.changed == 2
    assert 0 < weight.bytes < 3000


def test_a_branch_that_moves_on_meanwhile_refuses_the_merge(fork: Fork) -> None:
    conflict(fork)
    tip = head(fork.repository, "exp")
    assert tip is not None

    class Racing(FakeObjects):
        def create(self, key: str, data: bytes) -> None:
            if "/seg/" in key and not raced:
                raced.append(key)
                fork.ours.upsert([3])
                fork.commit("main")
            super().create(key, data)

    raced: list[str] = []
    racing = Racing(fork.clock)
    racing.objects = fork.store.objects

    with pytest.raises(VersionRaceError, match=r"main is at V-R-1\.2"):
        merge(opened(racing, fork.clock), tip.version)
    assert fsck(fork.repository) == []


def test_another_scenario_makes_a_new_major(fork: Fork) -> None:
    conflict(fork)
    manifest, _ = fork.merged(scenario="N")

    assert manifest.version == "V-N-1.0"


def test_lines_whose_common_ancestor_is_gone_are_refused_by_name(fork: Fork) -> None:
    conflict(fork)
    remove_branch(fork.repository, "exp")
    retire(fork.repository, ["V-R-1.0"])

    with pytest.raises(UnknownVersionError, match=r"go back to V-R-1\.0, which was removed"):
        merge(fork.repository, "V-W-1.0")


def test_a_mean_over_versions_that_are_gone_is_refused(fork: Fork) -> None:
    conflict(fork, 3)
    retire(fork.repository, ["V-W-1.1"])

    with pytest.raises(UnknownVersionError, match=r"V-W-1\.1 was removed"):
        fork.merged(resolver=Resolver.MEAN)
    fork.merged(resolver=Resolver.LATEST)


def test_live_tables_go_on_from_what_was_cut_not_from_a_merge(fork: Fork) -> None:
    conflict(fork)
    manifest, _ = fork.merged()
    cut = newest(fork.repository)

    assert manifest.op == 0
    assert cut is not None
    assert cut.op == fork.txn
    fork.clock.time += GRACE + 1
    with pytest.raises(InputError, match=r"head V-R-1\.2, which was not cut"):
        retire(fork.repository, ["V-R-1.1"])


def test_training_goes_on_from_a_merge(fork: Fork) -> None:
    conflict(fork)
    manifest, rows = fork.merged()
    live = Live()
    live.shards = copy.deepcopy(fork.ours.shards)
    for number, shard in enumerate(live.shards["items"]):
        reader = TableReader(fork.repository.cache, manifest, "items")
        ids = [int(each) for block in reader.blocks(number) for each in block.ids]
        shard.rows = {row: rows[row] for row in ids}
        shard.ordinal = max(each[0] for each in shard.rows.values()) + 1
        shard.next = manifest.tables["items"].parts[number].place.number("next") + 1
    live.upsert([1, 50])
    after = commit(fork.repository, live.draft(fork.repository, "op-99", manifest))

    assert read_contents(fork.repository, after) == live.contents()
    assert fsck(fork.repository) == []


def test_a_merged_row_is_explained_by_the_merge_and_a_taken_one_by_its_line(fork: Fork) -> None:
    conflict(fork)
    fork.theirs.upsert([5])
    fork.commit("exp")
    manifest, rows = fork.merged(resolver=Resolver.MEAN)
    worked_out, taken = (explain(fork.repository, manifest, "items", row) for row in (1, 5))

    assert worked_out is not None
    assert worked_out.written_by == manifest.version
    assert taken is not None
    assert taken.lsn == fork.theirs.contents()["items"][5][1]
    barrier = max(
        lsn(1, each.tables["items"].parts[worked_out.shard].place.number("next") - 1)
        for each in (fork.repository.manifest("V-R-1.1"), fork.repository.manifest("V-W-1.1"))
    )
    assert rows[1][1] == barrier


def test_tables_of_other_shapes_are_refused_and_those_of_one_line_are_kept(fork: Fork) -> None:
    conflict(fork)
    tip = head(fork.repository, "exp")
    assert tip is not None
    fork.theirs.upsert([2])
    draft = fork.theirs.draft(fork.repository, "op-50", tip, branch="exp", scenario="W")
    tables = {name: replace(each, schema="another") for name, each in draft.tables.items()}
    made = commit(fork.repository, replace(draft, tables={**tables, "extra": draft.tables["items"]}))
    with pytest.raises(InputError, match=r"items has dim 3, 1 of state and 2 shards in V-R-1\.1"):
        merge(fork.repository, made.version)

    draft = fork.theirs.draft(fork.repository, "op-51", made, branch="exp", scenario="W")
    both = {"items": draft.tables["items"], "extra": draft.tables["items"]}
    last = commit(fork.repository, replace(draft, tables=both))
    manifest, _ = fork.merged()
    assert list(manifest.tables) == ["items", "extra"]
    assert manifest.tables["extra"] == last.tables["extra"]


# -- the codec of lossy tiers

FLOATS = st.floats(width=32, allow_nan=False, allow_infinity=False)


@given(
    arrays(np.float32, st.tuples(st.integers(0, 5), st.integers(1, 7)), elements=FLOATS),
    st.sampled_from([INT16, INT8]),
)
def test_a_quantised_number_is_off_by_the_recorded_error_at_most(
    values: np.ndarray[tuple[int, int], np.dtype[np.float32]], tier: str
) -> None:
    found = quantise(values, tier)
    back = dequantise(found.codes, found.scale, tier)
    peak = np.abs(values).max(1, initial=0).astype(np.float64)
    steps = {INT16: 32767, INT8: 127}[tier]

    assert np.isfinite(back).all()
    assert np.abs(back.astype(np.float64) - values).max(initial=0) == found.error
    assert found.error <= (peak.max(initial=0) / steps) * 0.51 + 1e-37 * steps
    assert (back[peak == 0] == 0).all()


def test_numbers_that_are_not_finite_are_not_quantised() -> None:
    with pytest.raises(InputError, match="keep its version exact"):
        quantise(np.array([[1, np.inf]], np.float32), INT8)
