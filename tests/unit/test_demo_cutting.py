"""When a demo cuts versions and backups, and what it says of them."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast

import pytest

import driftline
from driftline.control import VersionCommitted
from driftline.demo.cutting import Cutter, log_of
from driftline.demo.measures import Recall
from driftline.demo.run import Health, Progress
from driftline.demo.summary import summarise
from driftline.demo.tables import Settings
from tests.support.version_commands import Scene

END = Progress(100, 100, 16, 50, 1.0, Recall(0.5, 0.1, 0.2, 10), Recall(0.5, 0.1, 0.2, 10), Health())


@dataclass
class Deployment:
    """Stands for a client: notes what is cut, and knows what became of it."""

    cuts: list[tuple[str, dict[str, float]]] = field(default_factory=list)
    settled: int = 0

    def snapshot(self, *, kind: str, metadata: object = None, figures: object = None) -> driftline.Snapshot:
        self.cuts.append((kind, dict(cast("dict[str, float]", figures or {}))))
        return driftline.Snapshot(len(self.cuts), {}, 0)

    def version_of(self, snapshot: driftline.Snapshot) -> VersionCommitted:
        return VersionCommitted(f"V-R-1.{snapshot.op - 1}", snapshot.op, "main", "R", (), "", {}, {})

    def settle(self) -> None:
        self.settled += 1


def cutter(steps: int) -> tuple[Deployment, Cutter]:
    deployment = Deployment()
    return deployment, Cutter(cast("driftline.Client", deployment), steps, "synthetic", deployment.settle)


@pytest.mark.parametrize("steps", [8, 16, 63, 469])
def test_versions_and_backups_alternate_at_eighths_of_the_run(steps: int) -> None:
    deployment, cuts = cutter(steps)
    for step in range(steps):
        cuts.after_push(step)
    cuts.cut_version()
    kinds = [kind for kind, _ in deployment.cuts]
    assert kinds == ["backup", "version"] * 3 + ["backup", "version"]
    assert (cuts.backups, len(cuts.versions), deployment.settled) == (4, 4, 7)


def test_a_version_carries_the_quality_so_far() -> None:
    deployment, cuts = cutter(16)
    cuts.cut_version()
    cuts.progress = END
    cuts.cut_version()
    assert deployment.cuts == [("version", {}), ("version", {"recall_at_20": 0.5})]


def test_the_summary_lists_versions_with_counts_and_bytes(tmp_path: Path) -> None:
    scene = Scene(tmp_path, ("users", "items"))
    _, cuts = cutter(16)
    for ids in ([1, 2, 3], [2]):
        scene.live.upsert(ids, "users")
        scene.live.upsert(ids, "items")
        scene.commit()
        cuts.cut_version()

    made = cuts.committed(scene.repository)

    assert [(each.version, each.rows, each.changed) for each in made] == [
        ("V-R-1.0", 6, 6),
        ("V-R-1.1", 6, 2),
    ]
    assert all(each.bytes for each in made)
    summary = summarise(END, Settings(k=20), source="s", versions=tuple(made), backups=4)
    assert json.loads(summary.to_json())["versions"][1] == {
        "version": "V-R-1.1",
        "rows": 6,
        "changed": 2,
        "bytes": made[1].bytes,
    }
    assert [line.split()[1] for line in log_of(scene.repository)] == ["V-R-1.1", "V-R-1.0"]


def test_without_versions_the_summary_says_so() -> None:
    assert json.loads(summarise(END, Settings(k=20), source="s").to_json())["versions"] == []
