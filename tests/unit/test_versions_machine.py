"""Two writers, branches, merges, tags, pins, removals, compactions, tiers and collections in any order,
against dictionaries.
"""

from __future__ import annotations

import copy

import numpy as np
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from driftline.errors import InputError, UnknownVersionError, VersionHeldError, VersionRaceError
from driftline.versions import (
    Draft,
    Manifest,
    Resolver,
    TableReader,
    branches,
    collect,
    commit,
    compact,
    create_branch,
    diff,
    fsck,
    head,
    lossy_tier,
    merge,
    pin,
    pins,
    remove_branch,
    remove_tag,
    resolve,
    retire,
    set_tag,
    tags,
)
from driftline.versions.rewriting import Limits
from driftline.versions.tiers import EXACT, INT8, INT16, largest_error, level
from tests.support.object_store_fake import FakeObjects
from tests.support.versioning import GRACE, Clock, Contents, Live, Shard, opened, read_contents

IDS = st.lists(st.integers(0, 25), max_size=8)
WRITER = st.integers(0, 1)


class Writer:
    """A line of training: live tables, a branch, and the version they continue."""

    def __init__(self, live: Live, branch: str, at: Manifest | None) -> None:
        self.live, self.branch, self.at = live, branch, at
        self.begun: Draft | None = None


class VersionStore(RuleBasedStateMachine):
    """The model: contents of each version that exists, labels, and what the writers hold."""

    @initialize()
    def begin(self) -> None:
        self.clock = Clock()
        self.store = FakeObjects(self.clock)
        self.repositories = [opened(self.store, self.clock) for _ in range(2)]
        self.contents: dict[str, Contents] = {}
        self.shards: dict[str, dict[str, list[Shard]]] = {}
        self.tags: dict[str, str] = {}
        self.begins: dict[str, str] = {}
        self.heads: dict[str, str] = {}
        self.pins: dict[str, float] = {}
        self.tiers: dict[str, str] = {}
        self.txn = 0
        self.writers = [Writer(Live(), "main", None), Writer(Live(), "main", None)]
        self.writers[0].live.upsert(range(10))
        self.commit(0)
        self.move_to(1, self.heads["main"])

    def version(self, choice: int) -> str:
        names = sorted(self.contents)
        return names[choice % len(names)]

    def move_to(self, writer: int, version: str) -> None:
        """Let a writer stand where a version is: a restore."""
        live = Live()
        live.shards = copy.deepcopy(self.shards[version])
        manifest = self.repositories[writer].manifest(version)
        self.writers[writer] = Writer(live, manifest.branch, manifest)

    @rule(writer=WRITER, changed=IDS, deleted=IDS)
    def train(self, writer: int, changed: list[int], deleted: list[int]) -> None:
        if self.writers[writer].begun is None:
            self.writers[writer].live.upsert(changed)
            self.writers[writer].live.delete(deleted)

    @rule(writer=WRITER)
    def seal(self, writer: int) -> None:
        """Begin a commit, to be finished later."""
        each = self.writers[writer]
        if each.begun is None:
            self.txn += 1
            each.begun = each.live.draft(
                self.repositories[writer],
                f"op-{self.txn}",
                each.at,
                branch=each.branch,
                scenario=self.scenario(each),
            )

    @rule(writer=WRITER)
    def commit(self, writer: int) -> None:
        self.seal(writer)
        each = self.writers[writer]
        assert each.begun is not None
        expected_at = self.heads.get(each.branch, self.begins.get(each.branch))
        lost = expected_at != (each.at.version if each.at is not None else None)
        try:
            committed = commit(self.repositories[writer], each.begun)
        except VersionRaceError:
            assert lost
            assert expected_at is not None
            self.move_to(writer, expected_at)
            return
        assert not lost
        assert committed.version not in self.contents, "a name is given once"
        self.contents[committed.version] = each.live.contents()
        self.shards[committed.version] = copy.deepcopy(each.live.shards)
        self.heads[each.branch] = committed.version
        each.live.forget_changes()
        each.begun, each.at = None, committed

    @rule(writer=WRITER, choice=st.integers(0, 50))
    def roll_back(self, writer: int, choice: int) -> None:
        """Commit an earlier version's rows on top of the writer's own branch."""
        each, target = self.writers[writer], self.version(choice)
        expected_at = self.heads.get(each.branch, self.begins.get(each.branch))
        if each.begun is not None or each.at is None or expected_at != each.at.version:
            return
        if self.is_lossy(target):
            return
        shards = copy.deepcopy(self.shards[target])
        for old, new in zip(each.live.shards["items"], shards["items"], strict=True):
            new.ordinal, new.next = max(old.ordinal, new.ordinal), max(old.next, new.next) + 1
        each.live.shards = shards
        each.live.forget_changes()
        self.txn += 1
        base = self.repositories[writer].manifest(target)
        each.begun = each.live.draft(
            self.repositories[writer], f"op-{self.txn}", each.at, base=base, branch=each.branch,
            scenario=self.scenario(each),
        )  # fmt: skip
        self.commit(writer)

    def scenario(self, writer: Writer) -> str:
        return "R" if writer.branch == "main" else "W"

    @precondition(lambda self: len(self.begins) < 4)
    @rule(writer=WRITER, choice=st.integers(0, 50))
    def fork(self, writer: int, choice: int) -> None:
        if self.writers[writer].begun is not None:
            return
        name, version = f"b{self.txn}-{len(self.begins)}", self.version(choice)
        if self.is_lossy(version):
            return
        try:
            create_branch(self.repositories[writer], name, version)
        except VersionHeldError:
            return
        self.begins[name] = version
        self.move_to(writer, version)
        self.writers[writer].branch = name

    @rule(choice=st.integers(0, 50))
    def unfork(self, choice: int) -> None:
        idle = sorted(self.begins.keys() - {each.branch for each in self.writers})
        if idle:
            name = idle[choice % len(idle)]
            remove_branch(self.repositories[0], name)
            del self.begins[name]
            self.heads.pop(name, None)

    @rule(writer=WRITER, name=st.sampled_from(["t1", "t2"]), choice=st.integers(0, 50))
    def tag(self, writer: int, name: str, choice: int) -> None:
        set_tag(self.repositories[writer], name, self.version(choice))
        self.tags[name] = self.version(choice)

    @rule(name=st.sampled_from(["t1", "t2"]))
    def untag(self, name: str) -> None:
        try:
            remove_tag(self.repositories[0], name)
        except InputError:
            assert name not in self.tags
        self.tags.pop(name, None)

    @rule(choice=st.integers(0, 50), seconds=st.integers(1, 5000))
    def pin(self, choice: int, seconds: int) -> None:
        until = self.clock.time + seconds
        pin(self.repositories[1], "team", self.version(choice), until)
        self.pins[self.version(choice)] = until

    @rule(choice=st.integers(0, 50))
    def retire(self, choice: int) -> None:
        version = self.version(choice)
        held = self.held()
        try:
            retire(self.repositories[0], [version])
        except VersionHeldError:
            assert version in held
        else:
            assert version not in held
            del self.contents[version]
            self.tiers.pop(version, None)

    @rule(writer=WRITER, segments=st.sampled_from([1, 2, 4, 64]))
    def compact(self, writer: int, segments: int) -> None:
        compact(self.repositories[writer], limits=Limits(segments=segments))

    @rule(writer=WRITER, choice=st.integers(0, 50), tier=st.sampled_from([EXACT, INT16, INT8]))
    def blur(self, writer: int, choice: int, tier: str) -> None:
        """Put a version into a tier."""
        version, held = self.version(choice), self.held()
        before = self.tiers.get(version, EXACT)
        try:
            compact(self.repositories[writer], {version: tier}, lambda: ())
        except VersionHeldError:
            assert version in held
        except InputError:
            assert level(tier) > level(before)
        else:
            assert tier == before or version not in held
            self.tiers[version] = tier

    @rule(writer=WRITER, choice=st.integers(0, 50), resolver=st.sampled_from(Resolver))
    def merge(self, writer: int, choice: int, resolver: Resolver) -> None:
        each, theirs = self.writers[writer], self.version(choice)
        ours = self.heads.get(each.branch, self.begins.get(each.branch))
        if each.begun is not None or each.at is None or ours != each.at.version or self.is_lossy(theirs):
            return
        repository = self.repositories[writer]
        try:
            merged = merge(repository, theirs, each.branch, resolver=resolver, scenario=self.scenario(each))
        except UnknownVersionError:
            return  # where the lines part, or for a mean what is on the way, was removed
        except InputError:
            return  # ... or became lossy
        assert merged.manifest is not None
        if merged.ancestor == theirs:
            assert merged.manifest.version == ours
            return
        made = merged.manifest.version
        assert merged.manifest.parents == (ours, theirs)
        assert made not in self.contents, "a name is given once"
        self.contents[made] = read_contents(repository, merged.manifest)
        conflicts = self.check_merged(made, ours, theirs, merged.ancestor, resolver)
        (table,) = merged.tables
        assert conflicts == {*table.changed.tolist(), *table.kept.tolist(), *table.revived.tolist()}
        self.shards[made] = copy.deepcopy(self.shards[ours])
        for mine, others in zip(self.shards[made]["items"], self.shards[theirs]["items"], strict=True):
            mine.next = max(mine.next, others.next)
        for number, part in enumerate(merged.manifest.tables["items"].parts):
            shard = self.shards[made]["items"][number]
            reader = TableReader(repository.cache, merged.manifest, "items")
            ids = {int(row) for block in reader.blocks(number) for row in block.ids}
            shard.rows = {row: self.contents[made]["items"][row] for row in ids}
            shard.ordinal = max(shard.ordinal, *(value[0] + 1 for value in shard.rows.values()), 0)
            assert part.rows == len(ids)
        self.heads[each.branch] = made
        self.move_to(writer, made)

    def check_merged(self, made: str, ours: str, theirs: str, ancestor: str, resolver: Resolver) -> set[int]:
        """See that a merge has the rows it must have; return its conflicts."""
        base, mine, other, found = (
            {row: value[1:] for row, value in self.contents[name]["items"].items()}
            for name in (ancestor, ours, theirs, made)
        )
        conflicts = set()
        for row in base.keys() | mine.keys() | other.keys():
            a, b, was = mine.get(row), other.get(row), base.get(row)
            same = {None: None} | {value: value[1:] for value in (a, b, was) if value is not None}
            if same[b] == same[was] or same[a] == same[b]:
                assert found.get(row) == a
            elif same[a] == same[was]:
                assert found.get(row) == b
            else:
                conflicts.add(row)
                if a is None or b is None:
                    assert found[row] == (a or b), "what was trained on stays"
                elif resolver is Resolver.LATEST:
                    assert found[row] == (b if b[0] > a[0] else a)
        assert found.keys() <= mine.keys() | other.keys()
        return conflicts

    def held(self) -> set[str]:
        """Versions that nobody may remove or blur."""
        pinned = {each for each, until in self.pins.items() if until > self.clock.time}
        return {*self.tags.values(), *self.begins.values(), *self.heads.values(), *pinned}

    def is_lossy(self, version: str) -> bool:
        return lossy_tier(self.repositories[0].manifest(version)) is not None

    @rule(seconds=st.sampled_from([1, int(GRACE / 3), int(GRACE) + 1]))
    def wait(self, seconds: int) -> None:
        self.clock.time += seconds
        if seconds > GRACE / 4:  # nobody takes half a grace period over a commit
            for number, each in enumerate(self.writers):
                if each.begun is not None or (each.at is not None and each.at.version not in self.contents):
                    self.move_to(number, self.heads["main"])

    @rule()
    def collect(self) -> None:
        collect(self.repositories[1])

    @rule(one=st.integers(0, 50), other=st.integers(0, 50))
    def compare(self, one: int, other: int) -> None:
        before, after = self.version(one), self.version(other)
        repository = self.repositories[0]
        readers = [
            TableReader(repository.cache, repository.manifest(each), "items") for each in (before, after)
        ]
        parts = list(diff(*readers))
        old, new = self.contents[before]["items"], self.contents[after]["items"]
        changed = {row for row in old.keys() & new.keys() if old[row][2:] != new[row][2:]}
        found = {row for each in parts for row in each.changed.tolist()}
        if any(self.is_lossy(each) for each in (before, after)):
            changed |= {row for row in old.keys() & new.keys() if old[row][1] != new[row][1]}
            assert found <= changed
        else:
            assert found == changed
        assert {row for each in parts for row in each.added.tolist()} == new.keys() - old.keys()
        assert {row for each in parts for row in each.removed.tolist()} == old.keys() - new.keys()

    @invariant()
    def versions_are_what_was_committed(self) -> None:
        if not hasattr(self, "contents"):
            return
        repository = opened(self.store, self.clock)
        assert set(repository.listing().revisions) == set(self.contents)
        for version, contents in self.contents.items():
            manifest = repository.manifest(version)
            found = read_contents(repository, manifest)
            assert manifest.retention == self.tiers.get(version, EXACT)
            if lossy_tier(manifest) is None:
                assert found == contents
                continue
            assert found["items"].keys() == contents["items"].keys()
            for row, (ordinal, lsn, values, state) in contents["items"].items():
                assert found["items"][row][:2] == (ordinal, lsn)
                for one, other in zip((values, state), found["items"][row][2:], strict=True):
                    off = np.abs(np.frombuffer(one, np.float32) - np.frombuffer(other, np.float32))
                    assert off.max() <= largest_error(manifest)

    @invariant()
    def labels_are_what_was_set(self) -> None:
        if not hasattr(self, "contents"):
            return
        repository = opened(self.store, self.clock)
        assert tags(repository) == self.tags
        expected = {"main": self.heads["main"]} | {
            name: self.heads.get(name, begin) for name, begin in self.begins.items()
        }
        assert branches(repository) == expected
        assert {each.version for each in pins(repository)} == {
            version for version, until in self.pins.items() if until > self.clock.time
        }
        for name, version in expected.items():
            assert resolve(repository, name).manifest.version == version
            tip = head(repository, name)
            assert tip is not None
            assert tip.version == version

    def teardown(self) -> None:
        if not hasattr(self, "contents"):
            return
        for _ in range(4):
            self.clock.time += GRACE + 1
            collect(opened(self.store, self.clock))
        repository = opened(self.store, self.clock)
        assert fsck(repository) == []
        needed = {key for name in self.contents for key in repository.manifest(name).objects()}
        assert {key for key in self.store.objects if key.startswith("tables/")} == needed


VersionStore.TestCase.settings = settings(
    max_examples=25,
    stateful_step_count=30,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
test_any_order_of_operations_gives_what_the_model_says = VersionStore.TestCase
