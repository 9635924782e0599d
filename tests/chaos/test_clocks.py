"""Workers whose clocks are wrong by hours: log time goes on, and the log still gives the same bits."""

from __future__ import annotations

from contextlib import ExitStack
from itertools import pairwise
from pathlib import Path

import pytest

from tests.chaos.kit.clocks import ShiftedWorker
from tests.chaos.kit.judge import Judge
from tests.chaos.kit.trainers import Trainer
from tests.integration.deployment import LOCAL, Deployment
from tests.support.waiting import until

pytestmark = pytest.mark.redis
HOURS = 3600.0


def test_workers_hours_apart_take_over_from_each_other(redis_url: str, tmp_path: Path) -> None:
    deployment = Deployment(LOCAL, f"local://{tmp_path}/log", redis_url, tmp_path)
    with ExitStack() as parts:
        client = parts.enter_context(deployment.client())
        workers = [ShiftedWorker(deployment, f"{hours:+}", hours * HOURS) for hours in (-5, 7, -9)]
        for worker in workers:
            parts.callback(worker.end)
        workers[0].start()
        spec = client.create_table(deployment.spec(shards=2)).spec
        judge = Judge(deployment, spec)
        trainer = parts.enter_context(Trainer(deployment, spec, "the trainer", rate=50))
        judge.wait_until_applied(60.0)
        for former, later in pairwise(workers):
            steps = trainer.steps
            later.start()
            client.snapshot()  # the router appends by its own clock
            former.kill()
            until(lambda steps=steps: trainer.steps > steps + 30, "more steps")  # type: ignore[misc]
            judge.wait_until_applied(60.0)
        trainer.finish(trainer.steps)
        judge.wait_until_applied(60.0)
        judge.catch_up()
        assert judge.differences() == []
        assert judge.unlike([trainer]) == []
        first, *_, last = deployment.records(f"{spec.name}.gradients", 0)
        assert last.timestamp >= first.timestamp
