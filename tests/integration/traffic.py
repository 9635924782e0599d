"""A trainer that pushes without pause while things break, and what its steps add up to.

Invariant: step s is always the same ids and gradients, so what must be in the table
is a function of the number of steps alone.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping
from types import TracebackType
from typing import Self

import numpy as np

from driftline import Table, TableSpec
from driftline.demo.inprocess import InProcessTable
from driftline.demo.tables import TableSettings
from tests.integration.deployment import Deployment, Floats, Ids, bits, pushed
from tests.support.waiting import until

IDS = 400
_PACE = 0.003  # seconds between pushes: a few hundred a second, so that a replay takes no time
_SLACK = 60.0  # a loaded machine, a broker that must let a session run out


def step_of(spec: TableSpec, step: int) -> tuple[Ids, Floats]:
    rng = np.random.default_rng((spec.init.seed, step))
    ids = rng.integers(0, IDS, 16).astype(np.uint64)
    return ids, rng.standard_normal((len(ids), spec.dim)).astype(np.float32)


class Traffic:
    """Pushes to `table` in a thread while inside; an error of the trainer is raised at the end."""

    def __init__(self, deployment: Deployment, table: Table, first_step: int = 0) -> None:
        self._deployment, self._table = deployment, table
        self.spec = table.spec
        self._stop = threading.Event()
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="trainer")
        self.steps = first_step

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join()
        if self._error is not None and kind is None:
            raise self._error

    def wait_until_applied(self) -> None:
        """Return once every shard has applied what is pushed from now on."""
        self.wait_for_steps(8)  # frames for every shard
        ends = {shard: self._deployment.end(self.spec, shard) for shard in range(self.spec.shards)}
        until(lambda: self._applied(ends), f"the shards apply up to {ends}", seconds=_SLACK)

    def _applied(self, ends: Mapping[int, int]) -> bool:
        stored = {shard: self._deployment.position(self.spec, shard) for shard in ends}
        return all(int(stored[shard].get(b"next", b"0")) >= end for shard, end in ends.items())

    def wait_for_steps(self, more: int) -> None:
        goal = self.steps + more
        until(lambda: self.steps >= goal or self._error is not None, f"{more} more steps", seconds=_SLACK)

    def _run(self) -> None:
        try:
            while not self._stop.wait(_PACE):
                ids, grads = step_of(self.spec, self.steps)
                self._table.push(ids, grads, step=self.steps)
                self.steps += 1
        except BaseException as error:  # noqa: BLE001 - raised where the test can see it
            self._error = error


def assert_nothing_lost_nothing_twice(deployment: Deployment, table: Table, steps: int) -> None:
    """The rows are those of a loop in this process over the same steps, and the audit agrees."""
    table.wait_readable(timeout=_SLACK)
    spec = table.spec
    lr = spec.optimizer["lr"]
    assert isinstance(lr, float)
    plain = InProcessTable(TableSettings(spec.dim, lr, spec.init.scale, spec.init.seed))
    for step in range(steps):
        ids, grads = step_of(spec, step)
        plain.push(ids, grads, step=step, read=None)
    everything = np.arange(IDS, dtype=np.uint64)
    assert np.array_equal(bits(pushed(table, everything)), bits(plain.get(everything).vectors))
    audit = deployment.audit(spec)
    assert audit.ok, [difference for shard in audit.shards for difference in shard.differences]
    assert audit.rows == len(plain)
