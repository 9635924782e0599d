"""Trainers that push without waiting for reads, stop and go on when told, and crash.

Invariant: step s of a trainer is always the same ids and gradients, so that what must
be in the log, once, is a function of the number of steps alone.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping
from types import TracebackType
from typing import Self

import numpy as np

from driftline import Client, Table, TableSpec
from driftline.ids import producer_id, shard_of
from tests.integration.deployment import Deployment, Floats, Ids
from tests.oracle.wire import Matrix

PER_STEP = 16  # ids
_CHECKPOINT = 50  # steps


class Trainer:
    """One producer on one table, pushing in a thread of its own while inside."""

    def __init__(
        self, deployment: Deployment, spec: TableSpec, name: str, *, rate: float, rows: int = 1_500
    ) -> None:
        self.name, self.producer = name, producer_id(name)
        self._deployment, self._spec, self._rows = deployment, spec, rows
        self.rate = rate  # steps a second; 0: as fast as it goes
        self.steps = 0  # pushed, once or more
        self.goal: int | None = None  # ends by itself there
        self._stop, self._going, self._idle = threading.Event(), threading.Event(), threading.Event()
        self._going.set()
        self._crash: int | None = None  # steps to be forgotten at once
        self._checkpoint = 0
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def step(self, number: int) -> tuple[Ids, Floats]:
        """Return what a step pushes: distinct ids and their gradients."""
        rng = np.random.default_rng((self._spec.init.seed, int.from_bytes(self.producer[:4], "big"), number))
        ids = np.sort(rng.choice(self._rows, PER_STEP, replace=False)).astype(np.uint64)
        return ids, rng.standard_normal((PER_STEP, self._spec.dim)).astype(np.float32)

    def parts(self, number: int) -> Mapping[int, tuple[tuple[int, ...], Matrix]]:
        """Return a step as frames must hold it: shard -> ids, gradients."""
        ids, grads = self.step(number)
        home = shard_of(ids, self._spec.shards)
        return {
            shard: (
                tuple(ids[home == shard].tolist()),
                tuple(tuple(row) for row in grads[home == shard].tolist()),
            )
            for shard in set(home.tolist())
        }

    def crash(self, forget: int) -> None:
        """Lose what is queued and go on `forget` steps before the last checkpoint.

        As a restarted trainer does. A checkpoint is taken after a flush, or what it stands on might be
        lost with the queue.
        """
        self._crash = forget

    def pause(self) -> None:
        """Return once nothing is pushed any more and everything is in the log."""
        self._idle.clear()
        self._going.clear()
        while not self._idle.wait(0.05):
            self.check()
        self.check()

    def go_on(self) -> None:
        self._going.set()

    def finish(self, steps: int) -> None:
        """Push as fast as possible up to step `steps`; returns when all is in the log."""
        self.goal, self.rate = max(steps, self.steps), 0.0
        self.go_on()
        self._thread.join()
        self.check()

    def check(self) -> None:
        """Raise what has ended the trainer."""
        if self._error is not None:
            raise self._error

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._going.set()
        self._thread.join(30.0)

    def _run(self) -> None:
        try:
            at = 0
            while not self._done(at):
                client = self._deployment.client(producer=self.name)
                try:
                    at = self._push(client, client.table(self._spec.name), at)
                finally:
                    client.close()  # what is queued is lost
                if self._crash is not None:
                    at, self._crash = max(0, self._checkpoint - self._crash), None
        except BaseException as error:  # noqa: BLE001 - raised where the run can see it
            self._error = error
        finally:
            self._idle.set()

    def _done(self, at: int) -> bool:
        return self._stop.is_set() or (self.goal is not None and at >= self.goal)

    def _push(self, client: Client, table: Table, at: int) -> int:
        while self._crash is None and not self._done(at):
            if not self._going.is_set():
                client.flush()
                self._idle.set()
                self._going.wait()
                continue
            ids, grads = self.step(at)
            table.push(ids, grads, step=at, read={})
            at += 1
            self.steps = max(self.steps, at)
            if at % _CHECKPOINT == 0:
                client.flush()
                self._checkpoint = max(self._checkpoint, at)
            if self.rate:
                self._stop.wait(1 / self.rate)
        if self._crash is None and not self._stop.is_set():
            client.flush()
        return at
