"""Lives of versioners beside the aggregators: versions held against the oracle at each commit.

Invariant: everything is drawn from the seed. A version is judged the moment its manifest exists:
all its rows, states, LSNs and ordinals are those of the log's prefix at its barrier. In the end each
barrier has become one version, or was rejected by the gate, and the control topic says which.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from random import Random
from typing import TypeVar

from driftline import topics
from driftline.control import ControlEvent, ControlTopic, VersionCommitted, VersionRejected, read_control
from driftline.errors import LogUnavailableError, ObjectStoreUnavailableError, RetryError
from driftline.frames.events import Op, Origin
from driftline.frames.headers import Keyring
from driftline.ids import producer_id
from driftline.log import Outgoing
from driftline.ops.requests import Signer
from driftline.versions import Manifest, PartManifest, Repository, fsck, open_repository
from driftline.versions.gating import Candidate, Judgement, Status, Unanswered
from driftline.versions.manifest import read_manifest
from driftline.versions.parts import PartReader
from driftline.versions.stores import ObjectInfo
from driftline_services.chassis.announcing import Announcer
from driftline_services.versioner.backups import Backups
from driftline_services.versioner.core import Versioner
from driftline_services.versioner.gates import Gates
from driftline_services.versioner.works import Works
from tests.simulation import scenario
from tests.simulation.group import Group
from tests.simulation.judge import GROUP, TABLE, Judge, Violation
from tests.simulation.member import Member
from tests.simulation.random_log import KEYRING
from tests.simulation.scenario import Plan, Scenario
from tests.simulation.traffic import Operator
from tests.simulation.world import Action, FakeLog, Process, World, run
from tests.simulation.world.process import ProcessKilledError
from tests.support.object_store_fake import FakeObjects

T = TypeVar("T")
TROUBLE = 0.02  # chance that a request of the store meets one of the faults, before the calm
REFUSED = 5  # the gate rejects the versions of every so many-th op


class Objects:
    """The store as one process reaches it: it fails, loses replies, and processes die in between."""

    def __init__(self, world: World, process: Process, inner: FakeObjects, judge: VersionJudge) -> None:
        self._world, self._process, self._inner, self._judge = world, process, inner, judge
        self._rng = world.random(f"objects:{process.name}")

    @property
    def url(self) -> str:
        return self._inner.url

    def create(self, key: str, data: bytes) -> None:
        self._change(key, lambda: self._create(key, data))

    def delete(self, keys: Sequence[str]) -> None:
        self._change(",".join(keys), lambda: self._inner.delete(keys))

    def get(self, key: str) -> bytes:
        self._request(key)
        return self._inner.get(key)

    def get_ranges(self, key: str, starts: Sequence[int], ends: Sequence[int]) -> list[bytes]:
        self._request(key)
        return self._inner.get_ranges(key, starts, ends)

    def head(self, key: str) -> ObjectInfo | None:
        self._request(key)
        return self._inner.head(key)

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        self._request(prefix)
        return self._inner.list(prefix)

    def local_path(self, key: str) -> Path | None:
        return None

    def _create(self, key: str, data: bytes) -> None:
        self._inner.create(key, data)
        self._judge.created(key, data)

    def _change(self, key: str, change: Callable[[], None]) -> None:
        self._request(key)
        change()
        self._request(key)  # the reply is lost, or nobody is left to hear it

    def _request(self, key: str) -> None:
        self._process.check()
        if not self._world.rates.latency or self._judge.calm:
            return
        draw = self._rng.random()
        if draw < TROUBLE / 4:
            self._world.trace(self._process.name, f"dies at {key}")
            self._judge.died(self._process)
            raise ProcessKilledError(f"{self._process.name} died at {key}")
        if draw < TROUBLE:
            raise ObjectStoreUnavailableError(f"{key}: no answer")


class VersionJudge:
    """Looks at every version the moment it exists."""

    def __init__(self, world: World, judge: Judge) -> None:
        self.store = FakeObjects(world.now)
        self._judge, self._world = judge, world
        self.repository = open_repository(self.store, GROUP, now=world.now)
        self.versions: dict[int, str] = {}  # op -> version
        self.calm = False
        self.died: Callable[[Process], None] = lambda process: process.kill()

    def created(self, key: str, data: bytes) -> None:
        """An object has come to be."""
        if not (key.startswith("versions/") and "/m-" in key):
            return
        manifest = read_manifest(key, data)
        self._world.trace("store", f"{manifest.version} of op {manifest.op}")
        try:
            self._check(manifest)
        except Violation as violation:
            self._judge.fail(violation)

    def _check(self, manifest: Manifest) -> None:
        if manifest.op in self.versions:
            raise Violation(
                "version-twice", f"op {manifest.op}: {manifest.version}, {self.versions[manifest.op]}"
            )
        if manifest.op < max(self.versions, default=0):
            raise Violation("version-order", f"op {manifest.op} behind {max(self.versions)}")
        if manifest.op % REFUSED == 0:
            raise Violation("version-gate", f"op {manifest.op} was to be rejected")
        self.versions[manifest.op] = manifest.version
        for shard, part in enumerate(manifest.tables[TABLE].parts):
            if part.place.number("op") != manifest.op:
                raise Violation(
                    "version-cut", f"{manifest.version}: shard {shard} at op {part.place.number('op')}"
                )
            self.check_part(
                f"{manifest.version}", manifest.tables[TABLE].state_size, shard, part, self.repository
            )

    def check_part(
        self, what: str, state_size: int, shard: int, part: PartManifest, repository: Repository
    ) -> None:
        """Hold a shard of a version or backup against the log's prefix at its barrier."""
        expected = self._judge.timelines[shard].at(part.place.number("next")).table
        dim = 4
        found = {}
        for block in PartReader(repository.cache, part, dim, state_size).blocks():
            for at, row in enumerate(block.ids.tolist()):
                values = block.rows[at].tobytes(), block.state[at].tobytes()
                found[row] = (*values, int(block.lsn[at]), int(block.ordinals[at]))
        if found != {row: tuple(each) for row, each in expected.items()}:
            wrong = [row for row in found.keys() | expected.keys() if found.get(row) != expected.get(row)]
            raise Violation("version-rows", f"{what}, shard {shard}: rows {wrong}")


class Coin:
    """A gate that fails every so many-th op, and takes its time."""

    name = "coin"

    def __init__(self, rng: Random) -> None:
        self._rng = rng

    async def evaluate(self, candidate: Candidate) -> Judgement:
        await asyncio.sleep(self._rng.random() * 0.1)
        return Judgement(self.name, Status.FAILED if candidate.op % REFUSED == 0 else Status.PASSED)


class Inline:
    """Blocking work at once, on the door of its process, after a while."""

    def __init__(self, world: World, process: Process) -> None:
        self._world, self._process = world, process
        self._rng = world.random(f"offload:{process.name}")

    async def run(self, work: Callable[[], T]) -> T:
        await asyncio.sleep(self._world.delay(self._rng))
        await self._process.pass_door()
        result = work()
        await asyncio.sleep(self._world.delay(self._rng))
        await self._process.pass_door()
        return result

    async def quiet(self) -> None:
        return


class VersionerMember(Member):
    """One versioner process."""

    def __init__(
        self,
        name: str,
        world: World,
        group: Group,
        log: FakeLog,
        keyring: Keyring,
        judge: VersionJudge,
        crashed: Callable[[Member, BaseException], None],
    ) -> None:
        self._enter(name, world, group, log, keyring, crashed)
        store = Objects(world, self.process, judge.store, judge)
        self.repository = Repository(store, GROUP, judge.repository.cache.__class__(store), now=world.now)
        control = ControlTopic(self._log, GROUP, keyring, world.now)
        self.versioner = Versioner(
            self._log,
            self._catalogue,
            Works(self.repository, self.process.name, "R"),
            Backups(self.repository, 2, 1, 1 << 20),
            Gates((Coin(world.random(f"coin:{name}")),), Unanswered.REJECT, 60.0),
            Announcer(control),
            Inline(world, self.process),
            instance=self.process.name,
            memory=1 << 20,
        )
        self._serve(self.versioner, [])

    def _topic_of(self, table: str) -> str:
        return topics.updates(table)


class CuttingOperator(Operator):
    """Asks for barriers where others restore: those restore versions that no gate has judged."""

    def _restoring(self) -> Outgoing:
        return self._request("barrier", GROUP, {"kind": "version"})


class VersionedScenario(Scenario):
    """A scenario with two versioners, backups, and a store that fails."""

    def __init__(self, world: World, plan: Plan) -> None:
        super().__init__(world, plan)
        self.log.create(topics.control(), 1)
        self.version_judge = VersionJudge(world, self.judge)
        self.version_judge.died = self._died
        self.version_group = Group(world, self.log)
        self.versioners: list[VersionerMember] = []
        self._count = 0
        self._chance = world.random("versioners")

    def make_operator(self) -> Operator:
        return CuttingOperator(self._world, self.log, KEYRING, self._plan.spec)

    async def run(self) -> None:
        coordinating = asyncio.create_task(self.version_group.run())
        for _ in range(2):
            self._start_versioner()
        backing_up = asyncio.create_task(self._back_up())
        await super().run()
        await backing_up
        coordinating.cancel()

    def _actions(self) -> list[Action]:
        return [
            *super()._actions(),
            Action("kill a versioner", lambda: self._with_versioner(self._kill_versioner), 6),
            Action("freeze a versioner", lambda: self._with_versioner(self._freeze_versioner), 3),
            Action("rebalance versioners", self.version_group.change, 3),
        ]

    def _start_versioner(self) -> None:
        self._count += 1
        member = VersionerMember(
            f"versioner-{self._count}",
            self._world,
            self.version_group,
            self.log,
            KEYRING,
            self.version_judge,
            self._versioner_crashed,
        )
        self.versioners.append(member)

    def _with_versioner(self, do: Callable[[VersionerMember], None]) -> None:
        if self.versioners:
            do(self._chance.choice(self.versioners))

    def _kill_versioner(self, member: VersionerMember) -> None:
        if member in self.versioners:
            self.versioners.remove(member)
            member.process.kill()
            self._world.loop.call_later(self._chance.random() * 0.2, self._start_versioner)
            self._world.loop.call_later(0.1 + self._chance.random() * 0.2, self.version_group.change)

    def _died(self, process: Process) -> None:
        for member in list(self.versioners):
            if member.process is process:
                self._kill_versioner(member)
        process.kill()

    def _freeze_versioner(self, member: VersionerMember) -> None:
        member.process.freeze()
        self._world.loop.call_later(self._chance.random() * 1.0, member.process.thaw)
        self._world.loop.call_later(self._chance.random() * 0.3, self.version_group.change)

    def _versioner_crashed(self, member: Member, error: BaseException) -> None:
        self._world.trace(member.process.name, f"crashes: {error!r}")
        if not isinstance(error, RetryError):
            self.judge.fail(error)
        assert isinstance(member, VersionerMember)
        self._kill_versioner(member)

    async def _back_up(self) -> None:
        log = self.log.handle(self._world.process("backups"))
        requester = producer_id("backups")
        asked_for = self.log.partition(topics.ops(GROUP), 0)
        await self._world.until(lambda: asked_for.end > 0, within=60.0)  # the table comes first
        for _ in range(4):
            await asyncio.sleep(self._chance.expovariate(1 / 0.08))
            op = Op("barrier", GROUP, 0, Origin(requester, 0, 0), {"kind": "backup"})
            asked = Signer(GROUP, requester, KEYRING).sign(op, 0, self._chance.randbytes(16))
            while True:
                try:
                    await log.append(topics.ops(GROUP), 0, [asked])
                    break
                except LogUnavailableError:
                    await asyncio.sleep(0.02)

    # How it ends

    def _at_rest(self) -> bool:
        if not super()._at_rest():
            return False
        self.version_judge.calm = True
        for member in self.versioners:
            member.process.thaw()
            member.deaf_until = 0.0
        return self._wanted() == self._told()

    def _standing(self) -> str:
        stand = [
            f"{each.process.name}: {each.versioner.failed} {each.versioner.waiting} "
            f"{[(op, cut.waiting_for) for op, cut in each.versioner.cuts.items()]} "
            f"{[(state.shard, state.position, state.last_op) for state in each.versioner.states.values()]}"
            for each in self.versioners
        ]
        return f"{super()._standing()}; versions of {self._told()}, wanted {self._wanted()}; {stand}"

    def _cuts(self) -> set[int]:
        """Return the version barriers that shard 0 has passed."""
        judged = self.judge.timelines[0].judged
        frames = [each.frame for each in judged if each.marker and each.frame is not None]
        return {
            each.seq
            for each in frames
            if each.kind == "barrier" and (each.body or {}).get("kind", "version") == "version"
        }

    def _wanted(self) -> dict[int, bool]:
        """Return by op whether it becomes a version."""
        return {op: op % REFUSED != 0 for op in self._cuts()}

    def _told(self) -> dict[int, bool]:
        """Return by op what the control topic says of it."""
        events = [event for event in self._events() if isinstance(event, VersionCommitted | VersionRejected)]
        return {event.op: isinstance(event, VersionCommitted) for event in events}

    def _events(self) -> list[ControlEvent]:
        records = self.log.partition(topics.control(), 0).records
        return [read_control(record, KEYRING).event for record in records]

    def _finally(self) -> None:
        super()._finally()
        judge = self.version_judge
        committed = {op for op, becomes in self._wanted().items() if becomes}
        if judge.versions.keys() != committed:
            raise Violation("version-set", f"{judge.versions}, barriers {committed}")
        findings = fsck(judge.repository)
        if findings:
            raise Violation("version-fsck", str(findings[0]))
        for member in self.versioners:
            for backup in member.versioner.backups:
                for (_, shard), part in backup.parts.items():
                    size = self._plan.spec.state_size
                    judge.check_part(f"backup {backup.op}", size, shard, part, member.repository)


async def live(world: World) -> str:
    """Run the scenario of the world's seed and return the trace; raises what the judge finds."""
    versioned = VersionedScenario(world, Plan.of(world.seed))
    living = asyncio.ensure_future(versioned.run())
    await asyncio.wait({living, versioned.judge.verdict}, return_when=asyncio.FIRST_COMPLETED)
    if versioned.judge.verdict.done():
        living.cancel()
        versioned.judge.verdict.result()
    await living
    return world.trace.text()


def run_seeds(seeds: Sequence[int]) -> None:
    """Run these seeds; the error raised carries the seed and the end of the trace."""
    with scenario.silence():
        for seed in seeds:
            run(seed, live, rates=Plan.of(seed).rates)
