"""A bad update is detected and undone by itself, with training going on."""

from __future__ import annotations

import itertools

import numpy as np

from driftline import Client
from tests.integration.deployment import Deployment, bits
from tests.integration.drifting import World, many, monitored, spec_of

_names = itertools.count()


def test_a_bad_push_is_found_and_the_group_goes_back_to_the_version_before_it(
    deployment: Deployment, client: Client
) -> None:
    world = World(deployment, client, spec_of(deployment))
    with monitored(deployment, f"push-{next(_names)}"):
        world.calibrate()
        version, op, then = world.version()
        world.tick()
        bad = world.tick(many)
        ended = world.ended()
        assert (ended.outcome, ended.version) == ("restored", version)
        assert np.array_equal(bits(world.rows()), bits(then))
        (alarm,) = world.alarms()
        assert (alarm.alarm, alarm.rule, alarm.clean >= op) == (bad, "many_nodes", True)
        assert world.steps() == ["preparing", "restoring"]
        for _ in range(3):
            assert world.verdict_on(world.tick()).standing == "cooling"
        assert world.verdict_on(world.tick()).action == "none"
