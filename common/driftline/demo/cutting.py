"""The versions and backups that a demo cuts while it trains, and what became of them.

Invariant: cuts are at fixed shares of the run's steps, whatever the clock says; each covers both
tables, for they are one group.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import driftline
from driftline.demo.run import Progress
from driftline.errors import VersionRejectedError
from driftline.versions import Repository, labels_of, read_all, weigh
from driftline.versions.drawing import Node
from driftline.versions.wording import log_lines

EIGHTHS = 8
"""A backup after each odd eighth of the run, a version after each even one; the last is the end's."""


@dataclass(frozen=True, slots=True)
class CutVersion:
    """A version that the run made."""

    version: str
    rows: int  # visible, of both tables
    changed: int  # that it stored itself
    bytes: int  # that it added to the store


@dataclass
class Cutter:
    """Cuts while a run of `steps` steps goes on; `settle` returns once what was pushed can be read."""

    client: driftline.Client
    steps: int
    source: str
    settle: Callable[[], None]
    tick_steps: int = 0  # a tick of the drift monitor every so many steps; 0: none besides
    progress: Progress | None = None
    versions: list[driftline.Snapshot] = field(default_factory=list)
    backups: int = 0
    rejected: int = 0
    ticks: int = 0  # barriers cut for the drift monitor alone
    last: int = 0  # op of the last barrier

    def after_push(self, step: int) -> None:
        """Cut what is due behind `step`."""
        before, now = step * EIGHTHS // self.steps, (step + 1) * EIGHTHS // self.steps
        if now in (before, EIGHTHS):
            if self.tick_steps and (step + 1) % self.tick_steps == 0:
                self.settle()
                self.last = self.client.snapshot(kind="backup").op
                self.ticks += 1
            return
        self.settle()  # else the cut would count as slowness of the rows
        if now % 2:
            self.last = self.client.snapshot(kind="backup").op
            self.backups += 1
        else:
            self.cut_version()

    def cut_version(self) -> None:
        """Cut a version with the model's quality so far."""
        figures = {}
        if self.progress is not None and self.progress.overall.model is not None:
            figures["recall_at_20"] = round(self.progress.overall.model, 4)
        self.versions.append(
            self.client.snapshot(kind="version", metadata={"source": self.source}, figures=figures)
        )
        self.last = self.versions[-1].op

    def committed(self, repository: Repository) -> list[CutVersion]:
        """Return the versions made, oldest first, once the versioner has committed them all.

        One that the drift monitor kept from being stored is counted in `rejected`. Raises TimedOutError.
        """
        made = []
        for snapshot in self.versions:
            try:
                version = self.client.version_of(snapshot).version
            except VersionRejectedError:  # by the drift monitor: it was cut amid a fault
                self.rejected += 1
                continue
            manifest = repository.manifest(version)
            base = repository.manifest(manifest.base) if manifest.base else None
            weight = weigh(manifest, base)
            made.append(CutVersion(manifest.version, weight.rows, weight.changed, weight.bytes))
        return made


def log_of(repository: Repository) -> list[str]:
    """Return what `driftline log` shows."""
    manifests = read_all(repository)
    known = {each.version: each for each in manifests}
    weights = {each.version: weigh(each, known.get(each.base)) for each in manifests}
    labels = labels_of(repository)
    nodes = [
        Node(each.version, each.parents, each.base, tuple(labels.get(each.version, ()))) for each in manifests
    ]
    return list(log_lines(nodes, manifests, weights))
