"""What follows a trial, whatever was injected: everybody rests, and the serial judge has its say.

Invariant: nothing counts as survived that was not compared with the oracle, and with what was pushed.
"""

from __future__ import annotations

from collections.abc import Sequence

from tests.chaos.kit.judge import Judge
from tests.chaos.kit.kills import add_counts
from tests.chaos.kit.report import Report
from tests.chaos.kit.trainers import Trainer
from tests.integration.deployment import Worker

PATIENCE = 60.0


def judged(judge: Judge, trainers: Sequence[Trainer], worker: Worker, report: Report) -> bool:
    """Let everything come to rest and compare it; tell whether the run may go on, and have it go on."""
    for trainer in trainers:
        trainer.pause()
    judge.wait_until_applied(PATIENCE)
    judge.catch_up()
    report.violated_all(judge.differences())
    if not worker.process.alive:
        report.violated(f"the worker ended:\n{worker.process.output()}")
    if report.good:
        for trainer in trainers:
            trainer.go_on()
    return report.good


def ended(judge: Judge, trainers: Sequence[Trainer], report: Report) -> None:
    """End the trainers and compare everything once more, also with what they pushed."""
    for trainer in trainers:
        trainer.finish(trainer.steps)
    judge.wait_until_applied(PATIENCE)
    judge.catch_up()
    report.violated_all(judge.differences())
    report.violated_all(judge.unlike(trainers))
    add_counts(report, judge)
