"""An aggregator is killed at each step of each operation: it is carried out once, to the bit.

`DRIFTLINE_TESTS_EVERY_STEP` makes it each step on both logs; else it is those of CI.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TypeVar

import numpy as np
import pytest

from driftline import Client, Table, TableSpec
from driftline.frames.events import BARRIER, PREPARE, RESTORE, RESTORE_ROWS, Op
from tests.integration.deployment import LOCAL, Deployment, Ids, Worker, bits
from tests.integration.test_restore import ADAM, IDS, image, train
from tests.integration.versioning import VersionerProcess, expected_at, stored_rows
from tests.integration.versions import cut_version
from tests.support.dying_aggregator import MOMENTS
from tests.support.servers import ROOT
from tests.support.waiting import until

pytestmark = pytest.mark.redis
T = TypeVar("T")
EVERY_STEP = bool(os.environ.get("DRIFTLINE_TESTS_EVERY_STEP"))
OF_CI = {
    BARRIER: {"marked"},
    PREPARE: {"copy in part"},
    RESTORE: {"swapped"},
    RESTORE_ROWS: {"forwarded to one shard", "applied", "committed"},
}
OF_CI_ON_THE_BROKER = {(RESTORE_ROWS, "committed")}
DYING = "tests.support.dying_aggregator"
TIMEOUT = 100.0


def steps(kind: str) -> list[str]:
    """Return the steps of an operation at which an aggregator is killed."""
    every = [name for name, moment in MOMENTS.items() if kind in moment.kinds]
    return every if EVERY_STEP else [name for name in every if name in OF_CI[kind]]


@dataclass(frozen=True, slots=True)
class Scene:
    """A deployment whose aggregator dies once it is told to."""

    deployment: Deployment
    worker: Worker
    armed: Path
    client: Client
    spec: TableSpec

    @property
    def table(self) -> Table:
        return self.client.table(self.spec.name)

    def killed_in(self, operation: Callable[[], T]) -> T:
        """Return what an operation returns in the middle of which the aggregator dies; another follows it."""
        with ThreadPoolExecutor(1) as pool:
            self.armed.touch()
            waiting: Future[T] = pool.submit(operation)
            until(lambda: self.worker.died, "it died", seconds=60)
            with self.deployment.worker("successor"):
                return waiting.result(timeout=TIMEOUT + 20)


@contextlib.contextmanager
def scene(deployment: Deployment, kind: str, moment: str) -> Iterator[Scene]:
    if deployment.kind != LOCAL and not EVERY_STEP and (kind, moment) not in OF_CI_ON_THE_BROKER:
        pytest.skip("on the broker a few steps: DRIFTLINE_TESTS_EVERY_STEP makes it all")
    armed = deployment.directory / "armed"
    dying = replace(
        deployment,
        more={
            **deployment.more,
            "DRIFTLINE_TESTS_DIE_OF": kind,
            "DRIFTLINE_TESTS_DIE_IN": moment,
            "DRIFTLINE_TESTS_DIE_WHEN": str(armed),
            "PYTHONPATH": os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")])),
        },
    )
    with dying.worker("dying", module=DYING) as worker, deployment.client() as client:
        spec = deployment.spec(shards=2, optimizer=ADAM)
        train(client.create_table(spec), 10)
        yield Scene(deployment, worker, armed, client, spec)


@pytest.mark.parametrize("moment", steps(BARRIER))
def test_in_a_barrier_and_the_version_is_what_the_log_says(own_deployment: Deployment, moment: str) -> None:
    with scene(own_deployment, BARRIER, moment) as here:
        cut = partial(cut_version, own_deployment, here.client, [here.spec])
        cut()
        train(here.table, 5, seed=2)
        version = here.killed_in(cut)
        rows = stored_rows(own_deployment.repository, version, here.spec.name)
        assert rows == expected_at(own_deployment, here.spec, version.op)


@pytest.mark.parametrize(
    ("kind", "moment"), [(kind, moment) for kind in (PREPARE, RESTORE) for moment in steps(kind)]
)
def test_in_a_restore_and_the_rows_are_those_of_the_version(
    own_deployment: Deployment, kind: str, moment: str
) -> None:
    with scene(own_deployment, kind, moment) as here:
        version = cut_version(own_deployment, here.client, [here.spec])
        at_the_barrier = image(own_deployment, here.spec)
        train(here.table, 5, seed=2)
        here.killed_in(partial(here.client.restore, version.version, timeout=TIMEOUT))
        assert image(own_deployment, here.spec) == at_the_barrier
        epochs = [own_deployment.position(here.spec, shard)[b"epoch"] for shard in range(here.spec.shards)]
        assert epochs == [b"1", b"1"]
        audit = own_deployment.audit(here.spec)
        assert audit.ok, [difference for shard in audit.shards for difference in shard.differences]


@pytest.mark.parametrize("moment", steps(RESTORE_ROWS))
def test_in_a_node_rollback_and_the_rows_are_those_of_the_backup_once(
    own_deployment: Deployment, moment: str
) -> None:
    with (
        scene(own_deployment, RESTORE_ROWS, moment) as here,
        VersionerProcess(own_deployment, "versioner", {}) as versioner,
    ):
        spec, table = here.spec, here.table
        cut = here.client.snapshot(kind="backup")
        some = IDS[:50]
        then = table.get(some).vectors.copy()
        train(table, 5, seed=2)
        back = partial(here.client.roll_back_to_backup, spec.name, some.tolist(), cut.op, timeout=TIMEOUT)
        done = here.killed_in(back)
        assert done.rows + len(done.absent) == len(some)
        there = ~np.isin(some, np.array(done.absent, np.uint64))
        assert np.array_equal(bits(table.get(some).vectors[there]), bits(then[there]))
        assert put_back(own_deployment, spec) == some[there].tolist()
        audit = own_deployment.audit(spec)
        assert audit.ok, [difference for shard in audit.shards for difference in shard.differences]
        assert versioner.process.alive, versioner.log


def put_back(deployment: Deployment, spec: TableSpec) -> list[int]:
    """Return the ids that ops put back, as often as one did: an op's second frame is a counted no-op."""
    ops: dict[tuple[int, int], Ids] = {}
    for shard in range(spec.shards):
        for event in deployment.events(spec, shard):
            if isinstance(event, Op) and event.kind == RESTORE_ROWS:
                ops[shard, event.origin.seq] = event.ids
    return sorted(row for ids in ops.values() for row in ids.tolist())
