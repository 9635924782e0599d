"""Short forms of the long runs (`make chaos`): each fault once or twice, and the serial oracle."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.chaos.kit import disks, kills, losses, memory, network, several, zombies
from tests.chaos.kit.filesystem import MountError, small_disk
from tests.chaos.kit.report import Report
from tests.chaos.kit.schedule import schedule
from tests.integration.deployment import KAFKA, LOCAL

pytestmark = [pytest.mark.redis, pytest.mark.slow]
ON_KAFKA = pytest.param(KAFKA, marks=pytest.mark.kafka)


@pytest.fixture
def report(request: pytest.FixtureRequest) -> Iterator[Report]:
    """A report of seed 1 that prints itself, and fails the test for what it holds."""
    made = Report(request.node.name, 1, verbose=True)
    yield made
    print("\n".join(made.lines()))
    assert made.good, made.violations


def test_a_seed_fixes_the_schedule() -> None:
    assert schedule(5, kills.MIX) == schedule(5, kills.MIX)
    assert schedule(5, kills.MIX) != schedule(6, kills.MIX)


@pytest.mark.kafka
def test_kills_of_all_parts_while_nobody_waits(tmp_path: Path, report: Report) -> None:
    mix = {"aggregator": 2, "router": 1, "redis": 2, "broker": 1, "trainer": 1}
    kills.run(kills.Kills(frames=2_000, mix=mix, gap=(0.3, 2.0)), tmp_path, report)


@pytest.mark.parametrize("kind", [LOCAL, ON_KAFKA])
def test_zombies(kind: str, tmp_path: Path, report: Report) -> None:
    zombies.run(zombies.Zombies(kind, 2), tmp_path, report)


def test_losses_of_redis(tmp_path: Path, report: Report) -> None:
    losses.run(losses.Losses(len(losses.KINDS)), tmp_path, report)


def test_losses_of_one_of_several_servers(tmp_path: Path, report: Report) -> None:
    several.run(several.Several(3), tmp_path, report)


@pytest.mark.kafka
def test_faults_of_the_network(tmp_path: Path, report: Report) -> None:
    network.run(network.Network(8, longest=1.5), tmp_path, report)


def test_memory_while_redis_stands_still(tmp_path: Path, report: Report) -> None:
    memory.run(memory.Memory(20.0), tmp_path, report)


def test_full_disks(tmp_path: Path, report: Report) -> None:
    try:
        with small_disk(tmp_path / "probe", 1 << 20):
            pass
    except MountError as error:
        pytest.skip(f"this user may not mount a small file system: {error}")
    disks.run(disks.Disks(LOCAL, rounds=1, full=1.0), tmp_path, report)
