"""A versioner beside a deployment, and what a version of it must hold: by an independent replay.

Invariant: what is expected of a version comes from the gradients log and the oracle alone.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import urllib.error
import urllib.request
from collections.abc import Mapping
from pathlib import Path

from driftline import TableSpec, topics
from driftline.control import ControlEvent, read_control
from driftline.errors import FrameError
from driftline.frames.events import BARRIER, Op
from driftline.servers.child import Child, Command, spawn
from driftline.versions import Manifest, Repository, TableReader, group_url, open_repository, open_store
from tests import oracle
from tests.integration.deployment import Deployment
from tests.support.servers import ROOT

Stored = tuple[bytes, bytes, int, int]  # row, state, LSN, ordinal


class VersionerProcess:
    """A versioner process: killed, started again."""

    def __init__(
        self,
        deployment: Deployment,
        name: str,
        more: Mapping[str, str],
        module: str = "driftline_services.versioner",
    ) -> None:
        self._directory, self._module = deployment.directory / name, module
        self.environment = deployment.environment() | {
            "DRIFTLINE_DATA_DIR": str(self._directory),
            "DRIFTLINE_STORE_URL": deployment.store_url,
            "DRIFTLINE_BACKUP_EVERY_S": "3600",
            "DRIFTLINE_VERSION_DAILY_AT": "off",
            "PYTHONPATH": os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")])),
            **more,
        }
        self._child: Child | None = None

    def __enter__(self) -> VersionerProcess:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.end()

    def start(self, **more: str) -> VersionerProcess:
        command = Command([sys.executable, "-m", self._module], {**self.environment, **more})
        self._child = spawn("versioner", command, self._directory)
        return self

    @property
    def process(self) -> Child:
        assert self._child is not None, "started by whoever made it"
        return self._child

    @property
    def log(self) -> str:
        return (self._directory / "server.log").read_text()

    def kill(self) -> None:
        self.process.kill()

    @property
    def died(self) -> bool:
        """Whether it was killed by SIGKILL. Raises AssertionError where it ended in another way."""
        status = self.process.exit_status
        assert status in (None, -signal.SIGKILL), f"it ended with {status}: {self.log[-2000:]}"
        return status is not None

    def freeze(self) -> None:
        os.kill(self.process.pid, signal.SIGSTOP)

    def thaw(self) -> None:
        os.kill(self.process.pid, signal.SIGCONT)

    def end(self) -> None:
        if self._child is not None and self._child.alive:
            self.thaw()
            self._child.stop(20.0)


def repository_of(deployment: Deployment, store_url: str | None = None) -> Repository:
    """Return the repository of a deployment, with nothing cached."""
    url = store_url or deployment.store_url
    return open_repository(open_store(group_url(url, deployment.group, Path())), deployment.group)


def expected_at(deployment: Deployment, spec: TableSpec, op: int) -> dict[int, Stored]:
    """Return the rows of a table behind barrier `op`, as an independent replay of the log has them."""
    rows: dict[int, Stored] = {}
    for shard in range(spec.shards):
        records = deployment.records(topics.gradients(spec.name), shard)
        kid = dict(records[0].headers)["dl-kid"].decode()
        judge = oracle.Shard(shard, keys={kid: deployment.keyring.current})
        for record, event in zip(records, deployment.events(spec, shard), strict=True):
            judge.apply(record)
            if isinstance(event, Op) and event.kind == BARRIER and event.origin.seq == op:
                break
        else:
            raise AssertionError(f"shard {shard} has no barrier {op}")
        rows |= {row: tuple(each) for row, each in judge.table().items()}  # type: ignore[misc]
    return rows


def stored_rows(repository: Repository, manifest: Manifest, table: str) -> dict[int, Stored]:
    """Return the rows of a table in a version."""
    reader = TableReader(repository.cache, manifest, table)
    rows: dict[int, Stored] = {}
    for shard in range(reader.shards):
        for block in reader.blocks(shard):
            for at, row in enumerate(block.ids.tolist()):
                rows[row] = (
                    block.rows[at].tobytes(),
                    block.state[at].tobytes(),
                    int(block.lsn[at]),
                    int(block.ordinals[at]),
                )
    return rows


def events_of(deployment: Deployment) -> list[ControlEvent]:
    """Return what the control topic tells of the group."""
    found = []
    for record in deployment.records(topics.control(), 0):
        try:
            told = read_control(record, deployment.keyring)
        except FrameError:  # another test's deployment has another key
            continue
        if told.group == deployment.group:
            found.append(told.event)
    return found


def readiness(port: int) -> tuple[int, str]:
    """Return status and reasons of /readyz."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/readyz", timeout=5) as answer:
            return answer.status, ""
    except urllib.error.HTTPError as error:
        return error.code, "; ".join(each["detail"] for each in json.loads(error.read())["reasons"])
    except OSError as error:
        return 0, str(error)
