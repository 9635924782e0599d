"""A small world that trains tick by tick, for the drift monitor to watch, and the ways it goes wrong.

Invariant: ticks are driven by the test, one barrier each; nothing here waits for a clock.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from driftline import Client, Table, TableSpec
from driftline.control import (
    Alarm,
    ControlEvent,
    DriftVerdict,
    RecoveryEnded,
    RecoveryStep,
    RollbackDone,
    RollbackRefused,
)
from driftline.errors import UnknownTopicError
from tests.integration.deployment import Deployment, Floats, Ids
from tests.integration.versioning import VersionerProcess, events_of
from tests.support.waiting import until

MONITOR = "driftline_services.drift_monitor"
SETTINGS = {
    "DRIFTLINE_DRIFT_LEAST_TICKS": "20",
    "DRIFTLINE_DRIFT_SETTLE_TICKS": "2",
    "DRIFTLINE_DRIFT_COOL_TICKS": "3",
    "DRIFTLINE_DRIFT_METRIC": "l2",
    "DRIFTLINE_DRIFT_THRESHOLDS": "relative_offset=0.4",  # a healthy step is .06 of the way to a neighbour
    "DRIFTLINE_BACKUP_EVERY_S": "3600",
}
CALIBRATION = 36  # ticks behind which the settings above judge ticks and nodes
GATED = {"DRIFTLINE_VERSION_GATES": "drift", "DRIFTLINE_VERSION_GATE_TIMEOUT_S": "20"}
ROWS, DIM = 400, 8
SGD = {"kind": "sgd", "lr": 1.0}

Bad = Callable[[Ids, Floats], Floats]


def spec_of(deployment: Deployment, shards: int = 2) -> TableSpec:
    """Return a table whose steps are its gradients."""
    return deployment.spec(dim=DIM, shards=shards, optimizer=SGD, scale=1.0)


@contextmanager
def monitored(
    deployment: Deployment, name: str, mode: str = "auto", **more: str
) -> Iterator[tuple[VersionerProcess, VersionerProcess]]:
    """Run a versioner and a monitor while inside; yield them in this order."""
    environment = {**SETTINGS, "DRIFTLINE_DRIFT_MODE": mode, **more}
    with (
        VersionerProcess(deployment, f"{name}-versioner", {**GATED, **more}) as versioner,
        VersionerProcess(deployment, f"{name}-monitor", environment, MONITOR) as monitor,
    ):
        yield versioner, monitor


@dataclass
class World:
    """Rows that move a little in each tick, in any direction."""

    deployment: Deployment
    client: Client
    spec: TableSpec
    seed: int = 0
    step: float = 0.02
    ops: list[int] = field(default_factory=list)
    ids: Ids = field(default_factory=lambda: np.arange(1, ROWS + 1, dtype=np.uint64))

    def __post_init__(self) -> None:
        self.table: Table = self.client.create_table(self.spec)
        self._rng = np.random.default_rng(self.seed)

    def push(self, bad: Bad | None = None, table: Table | None = None) -> None:
        """Train each row once."""
        sent = table or self.table
        rows = sent.get(self.ids, read_your_writes=True)
        grads = self._rng.normal(scale=self.step, size=(len(self.ids), DIM)).astype(np.float32)
        if bad is not None:
            grads = bad(self.ids, grads)
        sent.push(self.ids, grads, read=rows.read)

    def tick(self, bad: Bad | None = None) -> int:
        """Train each row once, cut a backup and return its op."""
        self.push(bad)
        self.ops.append(self.client.snapshot(kind="backup").op)
        return self.ops[-1]

    def calibrate(self, ticks: int = CALIBRATION) -> None:
        """Train in good health for so long that the monitor judges."""
        for _ in range(ticks):
            self.tick()
        self.verdict_on(self.ops[-1])

    def version(self) -> tuple[str, int, Floats]:
        """Cut a version and return its name, its op and the rows that it has."""
        self.push()
        cut = self.client.snapshot()
        then = self.table.get(self.ids).vectors.copy()
        return self.client.version_of(cut).version, cut.op, then

    # -- what is told

    def events(self) -> list[ControlEvent]:
        try:
            return events_of(self.deployment)
        except UnknownTopicError:  # no service has begun yet
            return []

    def verdicts(self) -> dict[int, DriftVerdict]:
        """Return the verdicts by op; fails if one was told twice."""
        found: dict[int, DriftVerdict] = {}
        for each in self.events():
            if isinstance(each, DriftVerdict):
                assert each.op not in found, f"op {each.op} was judged twice: {found[each.op]}, {each}"
                found[each.op] = each
        return found

    def verdict_on(self, op: int, seconds: float = 60.0) -> DriftVerdict:
        """Wait for the verdict on a barrier."""
        until(lambda: op in self.verdicts(), f"a verdict on op {op}", seconds=seconds)
        return self.verdicts()[op]

    def ended(self, number: int = 1, seconds: float = 60.0) -> RecoveryEnded:
        """Wait for the `number`th recovery to end."""

        def found() -> list[RecoveryEnded]:
            return [each for each in self.events() if isinstance(each, RecoveryEnded)]

        until(lambda: len(found()) >= number, f"recovery {number} ends: {self.told()}", seconds=seconds)
        return found()[number - 1]

    def steps(self) -> list[str]:
        """Return the steps of all recoveries."""
        return [each.step for each in self.events() if isinstance(each, RecoveryStep)]

    def alarms(self) -> list[Alarm]:
        return [each for each in self.events() if isinstance(each, Alarm)]

    def told(self) -> Sequence[ControlEvent]:
        """Return what was told besides verdicts."""
        drift = (Alarm, RecoveryStep, RecoveryEnded, RollbackDone, RollbackRefused)
        return [each for each in self.events() if isinstance(each, drift)]

    def rows(self) -> Floats:
        return self.table.get(self.ids).vectors


def many(ids: Ids, grads: Floats) -> Floats:
    """A cluster of a quarter of the rows is pushed far, the wrong way."""
    bad = grads.copy()
    some = ids % 4 == 0
    bad[some] *= -50
    return bad


def nodes(*which: int) -> Bad:
    """Only these rows are pushed far."""

    def bad(ids: Ids, grads: Floats) -> Floats:
        found = grads.copy()
        found[np.isin(ids, np.array(which, np.uint64))] *= (
            80  # far, and yet below what the guard calls explosion
        )
        return found

    return bad


Array = NDArray[np.generic]
Environment = Mapping[str, str]
