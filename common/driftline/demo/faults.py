"""What a demo plants to be found: a few rows pushed astray, then a worker that trains backwards.

Invariant: nothing is planted before the monitor judges; everything is pushed by producers of its own,
through the public library, as a broken worker would push it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

import driftline
from driftline import clock
from driftline.demo.tables import Floats, Ids
from driftline.stack.local import Endpoints

MILD_AT, BAD_AT = 0.6, 0.8
"""Shares of the run at which the faults are planted: behind the version at 6/8, where the second one."""

MILD_ROWS = 5
MILD_PUSHES = 40
"""One push does not go far, however hard: adagrad's step is at most its rate times the root of dims."""
BAD_PUSHES = 4  # of the broken worker, to one of the honest one
CLUSTER_ROWS = 64
FACTOR = 50.0
BAD_SECONDS = 2.0


@dataclass
class Faults:
    """Plants faults while a run of `steps` steps goes on.

    `judges` tells whether anybody would notice; `show` gets a line for each fault.
    """

    endpoints: Endpoints
    items: str  # the table
    dims: int
    steps: int
    seed: int
    judges: Callable[[], bool]
    show: Callable[[str], None]
    data_dir: Path  # of the deployment, where its versions are
    now: clock.Clock = clock.monotonic
    last: tuple[Ids, Floats] | None = None  # what the honest trainer pushed last
    planted: list[str] = field(default_factory=list)
    _worker: driftline.Client | None = None
    _cluster: Ids | None = None
    _until: float = 0.0
    _told: bool = False

    def pushed(self, ids: Ids, grads: Floats) -> None:
        """Note what the honest trainer pushed."""
        self.last = ids, grads

    def after_push(self, step: int) -> None:
        """Plant what is due behind `step`."""
        share = (step + 1) / self.steps
        if self._cluster is not None:
            self._push_backwards()
        elif share >= BAD_AT and "bad" not in self.planted and self.judges():
            self._begin_backwards()
        elif MILD_AT <= share < BAD_AT and not self.planted and self.judges():
            self._push_astray()

    def close(self) -> None:
        """End the broken worker."""
        self._cluster = None
        if self._worker is not None:
            self._worker.close()
            self._worker = None

    def _push_astray(self) -> None:
        if self.last is None:
            return
        self.planted.append("mild")
        rng = np.random.default_rng(self.seed)
        ids = np.sort(rng.choice(np.unique(self.last[0]), MILD_ROWS, replace=False))
        with self._client() as worker:
            table = worker.table(self.items)
            grads = rng.normal(size=(len(ids), self.dims)).astype(np.float32) * np.float32(FACTOR)
            for _ in range(MILD_PUSHES):
                table.push(ids, grads, read=table.get(ids).read)
        self.show(f"PLANTED: {MILD_ROWS} rows of {self.items} are pushed astray by a worker")

    def _begin_backwards(self) -> None:
        if self.last is None:
            return
        self.planted.append("bad")
        self._worker = self._client()
        self._worker.on_rolled_back(self._stop)
        self._until = self.now() + BAD_SECONDS
        self._cluster = self._choose()
        self.show(
            f"PLANTED: a worker trains {len(self._cluster)} rows of {self.items} backwards, {FACTOR:g} times "
            f"as hard, for {BAD_SECONDS:g} s"
        )
        self._push_backwards()

    def _choose(self) -> Ids:
        """Return the rows nearest to one of those pushed last: a cluster."""
        assert self.last is not None, "somebody has pushed"
        assert self._worker is not None, "the worker is there"
        ids = np.unique(self.last[0])
        rows = self._worker.table(self.items).get(ids).vectors
        unit = rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)
        return ids[np.argsort(-(unit @ unit[0]), kind="stable")[:CLUSTER_ROWS]]

    def _push_backwards(self) -> None:
        worker, cluster = self._worker, self._cluster
        assert worker is not None, "the worker is there"
        assert cluster is not None, "it has chosen"
        if self._told or self.now() > self._until:
            self.show("the broken worker has ended" + (", told of the rollback" if self._told else ""))
            self.close()
            return
        for _ in range(BAD_PUSHES):
            self._push_once(worker.table(self.items), np.sort(cluster))

    def _push_once(self, table: driftline.Table, cluster: Ids) -> None:
        rows = table.get(cluster)
        if self._told:
            return
        grads = FACTOR * rows.vectors / np.maximum(np.linalg.norm(rows.vectors, axis=1, keepdims=True), 1e-12)
        if self.last is not None:  # what the honest trainer sends, turned round
            ids, sent = self.last
            mine = np.isin(ids, cluster)
            place = np.searchsorted(cluster, ids[mine])
            grads[place] = -FACTOR * sent[mine]
        table.push(cluster, grads.astype(np.float32), read=rows.read)

    def _client(self) -> driftline.Client:
        endpoints = self.endpoints
        return driftline.Client(
            driftline.Options(
                endpoints.log_url,
                endpoints.redis_url,
                endpoints.group,
                endpoints.key,
                security=endpoints.security,
                data_dir=self.data_dir,
            )
        )

    def _stop(self, notice: object) -> None:
        self._told = True
