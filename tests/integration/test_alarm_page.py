"""What the page on alarms tells a person to type works."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from typer.testing import CliRunner

from driftline import Client
from driftline.cli.main import app
from tests.integration.deployment import LOCAL, Deployment
from tests.integration.drifting import World, many, monitored, spec_of
from tests.support.waiting import until

PAGE = Path(__file__).parents[2] / "docs" / "how-to" / "alarm.md"


def shown(verb: str) -> list[str]:
    """Return the arguments of the page's `driftline drift VERB`."""
    found = re.search(rf"^\$ driftline (drift {verb}\b.*)$", PAGE.read_text(), re.M)
    assert found is not None, f"the page shows no driftline drift {verb}"
    return re.findall(r'"[^"]*"|\S+', found[1])


@pytest.mark.parametrize("deployment", [LOCAL], indirect=True, scope="module")
def test_the_commands_of_the_page_answer_alarms(
    deployment: Deployment, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in deployment.environment().items():
        monkeypatch.setenv(name, value)

    def run(verb: str, *more: str) -> str:
        number = str(world.alarms()[-1].alarm) if world.alarms() else "0"
        arguments = [number if each.isdigit() else each.strip('"') for each in shown(verb)]
        result = CliRunner().invoke(app, [*arguments, *more])
        assert result.exit_code == 0, result.output
        return result.stdout

    world = World(deployment, client, spec_of(deployment))
    with monitored(deployment, "page", "approve"):
        world.calibrate()
        assert "no alarm is open" in run("status")
        version, _, _ = world.version()
        world.tick()
        world.tick(many)
        until(lambda: world.steps() == ["waiting"], "it waits", seconds=30)
        assert "open alarm" in run("status")
        run("reject")
        assert world.ended().outcome == "rejected"
        for _ in range(8):
            world.tick()
        world.tick(many)
        until(lambda: world.steps()[1:] == ["waiting"], "it waits again", seconds=30)
        run("approve")
        assert (world.ended(2).outcome, world.ended(2).version) == ("restored", version)
        run("watch", "--for", "0.1")
