"""Two writers, branches, tags, pins, removals and collections in any order, against dictionaries."""

from __future__ import annotations

import copy

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from driftline.errors import InputError, VersionHeldError, VersionRaceError
from driftline.versions import (
    Draft,
    Manifest,
    TableReader,
    branches,
    collect,
    commit,
    create_branch,
    diff,
    fsck,
    head,
    pin,
    pins,
    remove_branch,
    remove_tag,
    resolve,
    retire,
    set_tag,
    tags,
)
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
        pinned = {each for each, until in self.pins.items() if until > self.clock.time}
        held = {*self.tags.values(), *self.begins.values(), *self.heads.values(), *pinned}
        try:
            retire(self.repositories[0], [version])
        except VersionHeldError:
            assert version in held
        else:
            assert version not in held
            del self.contents[version]

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
        assert {row for each in parts for row in each.changed.tolist()} == changed
        assert {row for each in parts for row in each.added.tolist()} == new.keys() - old.keys()
        assert {row for each in parts for row in each.removed.tolist()} == old.keys() - new.keys()

    @invariant()
    def versions_are_what_was_committed(self) -> None:
        if not hasattr(self, "contents"):
            return
        repository = opened(self.store, self.clock)
        assert set(repository.listing().revisions) == set(self.contents)
        for version, contents in self.contents.items():
            assert read_contents(repository, repository.manifest(version)) == contents

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
