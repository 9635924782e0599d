"""A bad update is detected and undone by itself, with training going on.

The tests share one world and its calibration; each leaves it in good health. `DRIFTLINE_TESTS_DRIFT`
runs all faults and all kills, on both logs; without it some are run, on the embedded log.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator

import numpy as np
import pytest

from driftline.control import DriftVerdict, RecoveryEnded, RecoveryStep, event_id
from tests.integration.deployment import LOCAL, Deployment, Floats, Ids, Worker, bits
from tests.integration.drifting import DIM, World, many, monitored, nodes, spec_of
from tests.integration.versioning import VersionerProcess
from tests.support.waiting import until

ALL = bool(os.environ.get("DRIFTLINE_TESTS_DRIFT"))
opt_in = pytest.mark.skipif(not ALL, reason="DRIFTLINE_TESTS_DRIFT is not set")


class Scene:
    """A world, what watches it, and the aggregator that trains it."""

    def __init__(
        self, world: World, worker: Worker, versioner: VersionerProcess, monitor: VersionerProcess
    ) -> None:
        self.world, self.worker, self.versioner, self.monitor = world, worker, versioner, monitor
        self.recovered = 0

    def kill(self, who: str) -> None:
        """Kill a service with SIGKILL and start it again."""
        if who == "aggregator":
            self.worker.restart()
            return
        killed = self.monitor if who == "monitor" else self.versioner
        killed.kill()
        killed.start()

    def recovery(self) -> RecoveryEnded:
        """Wait for the next recovery to end."""
        self.recovered += 1
        return self.world.ended(self.recovered)

    def heal(self, ticks: int = 6) -> None:
        """Train on until the monitor judges again."""
        for _ in range(ticks):
            self.world.tick()
        assert self.world.verdict_on(self.world.ops[-1]).action == "none"


@pytest.fixture(scope="module")
def scene(deployment: Deployment) -> Iterator[Scene]:
    with (
        deployment.worker(instance_id="worker") as worker,
        deployment.client() as client,
        monitored(deployment, "drift") as (versioner, monitor),
    ):
        world = World(deployment, client, spec_of(deployment))
        world.calibrate()
        yield Scene(world, worker, versioner, monitor)


def test_an_operators_bulk_upsert_raises_no_alarm(scene: Scene) -> None:
    world = scene.world
    some = world.ids[: len(world.ids) // 2]
    rows = np.random.default_rng(9).normal(scale=3.0, size=(len(some), DIM)).astype(np.float32)
    world.table.upsert(some, rows)
    world.calibrate()  # what was learned of half the table is void, and is learned anew
    assert world.alarms() == []


def test_few_nodes_go_back_to_the_backup_before_their_tick(scene: Scene) -> None:
    world, which = scene.world, tuple(range(301, 317))
    world.tick()
    then = world.rows()
    bad = world.tick(nodes(*which))
    ended = scene.recovery()
    verdict = world.verdict_on(bad)
    assert (ended.outcome, verdict.rule, verdict.action) == ("nodes_restored", "thresholds", "node_rollback")
    assert set(verdict.nodes) == set(which)
    back = np.isin(world.ids, np.array(which, np.uint64))
    assert np.array_equal(bits(world.rows()[back]), bits(then[back]))
    scene.heal()


def test_a_bad_push_takes_the_group_back_to_the_version_before_it(scene: Scene) -> None:
    world = scene.world
    version, op, then = world.version()
    world.tick()
    bad = world.tick(many)
    ended = scene.recovery()
    assert (ended.outcome, ended.version) == ("restored", version)
    assert np.array_equal(bits(world.rows()), bits(then))
    alarm = world.alarms()[-1]
    assert (alarm.alarm, alarm.rule) == (bad, "many_nodes")
    assert alarm.clean >= op
    assert world.verdict_on(world.tick()).standing == "cooling"
    scene.heal()
    assert all(each.ok for each in [world.deployment.audit(world.spec)])


@pytest.mark.parametrize("who", ["monitor", "versioner", "aggregator"])
@pytest.mark.parametrize("moment", ["alarm", "preparing", "restoring"])
def test_a_recovery_in_which_somebody_is_killed_is_carried_out_once(
    scene: Scene, who: str, moment: str
) -> None:
    chosen = (who, moment) in {("monitor", "preparing"), ("aggregator", "restoring")}
    if not ALL and not (chosen and scene.world.deployment.kind == LOCAL):
        pytest.skip("two of the nine on the embedded log; DRIFTLINE_TESTS_DRIFT runs all on both")
    world, already = scene.world, len(scene.world.alarms())
    version, _, then = world.version()
    world.tick()
    world.tick(many)

    def reached() -> bool:
        alarms = world.alarms()
        if len(alarms) == already:
            return False
        number = alarms[-1].alarm
        told = [each for each in world.events() if getattr(each, "alarm", None) == number]
        return moment == "alarm" or any(getattr(each, "step", "") == moment for each in told)

    until(reached, f"the {moment}", seconds=60)
    scene.kill(who)
    ended = scene.recovery()
    assert (ended.outcome, ended.version) == ("restored", version)
    assert np.array_equal(bits(world.rows()), bits(then))
    told = Counter(event_id(each) for each in world.events() if not isinstance(each, DriftVerdict))
    assert set(told.values()) == {1}
    scene.heal(10)


@opt_in
def test_a_monitor_that_is_killed_skips_no_tick_and_raises_no_alarm(scene: Scene) -> None:
    world, already = scene.world, len(scene.world.alarms())
    for number in range(12):
        world.tick()
        if number == 4:
            scene.monitor.kill()
            scene.monitor.start()
    world.verdict_on(world.ops[-1])
    assert set(world.ops) <= set(world.verdicts())
    assert len(world.alarms()) == already


@opt_in
def test_the_whole_table_rotated_is_taken_back(scene: Scene) -> None:
    world = scene.world
    turn = np.linalg.qr(np.random.default_rng(5).normal(size=(DIM, DIM)))[0].astype(np.float32)

    def rotated(ids: Ids, grads: Floats) -> Floats:
        rows = world.table.get(ids).vectors
        return rows - rows @ turn

    version, _, then = world.version()
    world.tick()
    world.tick(rotated)
    ended = scene.recovery()
    assert (ended.outcome, ended.version) == ("restored", version)
    assert np.array_equal(bits(world.rows()), bits(then))
    scene.heal()


@opt_in
def test_poisoning_that_spans_versions_that_passed_goes_back_before_its_onset(scene: Scene) -> None:
    """It is slow: each tick looks healthy, and the e-detector needs several."""
    world, already = scene.world, len(scene.world.alarms())
    world.version()

    def drifting(ids: Ids, grads: Floats) -> Floats:
        return grads + np.float32(0.02)  # every row, one way

    for number in range(200):
        world.tick(drifting)
        if number % 4 == 3:
            world.verdict_on(world.ops[-1])
            if len(world.alarms()) > already:
                break
            world.push(drifting)
            world.client.version_of(world.client.snapshot())
    ended = scene.recovery()
    alarm = world.alarms()[-1]
    assert alarm.rule == "e_detector"
    assert ended.outcome == "restored"
    assert int(str(ended.figures["target"])) <= alarm.clean < alarm.alarm
    scene.heal(10)


def test_a_producer_that_goes_on_poisoning_is_shut_out(scene: Scene) -> None:
    if not ALL and scene.world.deployment.kind != LOCAL:
        pytest.skip("on the embedded log; DRIFTLINE_TESTS_DRIFT runs it on both")
    world = scene.world
    with world.deployment.client() as bad:
        table = bad.table(world.spec.name)
        version, _, _ = world.version()

        def poisoned() -> None:
            world.push()
            world.push(many, table)
            world.ops.append(world.client.snapshot(kind="backup").op)

        world.tick()
        poisoned()
        assert scene.recovery().version == version
        for _ in range(4):  # cooling, and the first tick behind it
            poisoned()
        ended = scene.recovery()
        assert (ended.outcome, ended.version) == ("restored", version)
        last = world.alarms()[-1].alarm
        mine = [each for each in world.events() if isinstance(each, RecoveryStep) and each.alarm == last]
        steps = [each.step for each in mine]
        assert steps == ["quarantined", "shut_out", "preparing", "restoring"]
        then = world.rows()
        world.push(many, table)
        world.client.snapshot(kind="backup")
        assert np.array_equal(bits(world.rows()), bits(then))
