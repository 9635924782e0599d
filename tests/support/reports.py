"""A report with something in every part of it, and hostile text wherever text may stand."""

from __future__ import annotations

import numpy as np

from driftline.control import (
    Alarm,
    BackupTaken,
    ControlEvent,
    DriftVerdict,
    RecoveryEnded,
    RecoveryStep,
    Told,
    VersionRejected,
    event_id,
)
from driftline.report import Domains, Report, Rows, alarms, compare_tables, lineage, timeline
from driftline.report.comparing import Moved
from driftline.report.model import TableComparison
from driftline.report.sampling import Sizes, choose
from driftline.versions import Manifest

HOSTILE = "</script><img src=x onerror=alert(1)>&amp;'\"\u2028"
"""Ends a script, makes an element that runs code, and is what JSON in HTML forgets."""


def told(*events: ControlEvent, every: float = 60.0) -> list[Told]:
    """Return events as the topic tells them, `every` seconds apart."""
    return [
        Told("g", event_id(event), event, offset, int(1_700_000_000_000 + offset * every * 1000))
        for offset, event in enumerate(events)
    ]


def verdict(op: int, standing: str = "ok", table: str = "items", **more: object) -> DriftVerdict:
    """Return the verdict on the tick that ends with barrier `op`."""
    fields: dict[str, object] = {
        "op": op,
        "table": table,
        "shards": (0, 1),
        "of": 2,
        "instance": "monitor-a",
        "time": op * 1000,
        "begun": op - 1,
        "mode": "auto",
        "standing": standing,
        "rule": "",
        "action": "none",
        "nodes": (),
        "node_count": 0,
        "onset": 0,
        "clean": 0,
    }
    return DriftVerdict(**(fields | more))  # type: ignore[arg-type] # fields by name


def events() -> list[Told]:
    """Return a night with an alarm in it."""
    bad = verdict(
        9,
        "alarm",
        rule="many_nodes",
        action="full_rollback",
        nodes=(3, 5),
        node_count=41,
        evidence={
            "r": 3021.5,
            "threshold": 1440.0,
            "why": HOSTILE,
            "channels": [{"name": "moved", "p": 0.001}],
        },
        producers={"ab" * 16: [100, 0.5, 50.0], "cd" * 16: [90, 0.4, 0.6]},
    )
    raised = Alarm(
        9,
        "items",
        "many_nodes",
        "full_rollback",
        "auto",
        8,
        7,
        {"items": (3, 5)},
        (event_id(bad),),
        HOSTILE,
        "monitor-a",
    )
    return told(
        BackupTaken(5, "a", {"items": (0,)}, True, 1000),
        *(verdict(op) for op in range(5, 9)),
        VersionRejected(6, "main", "R", HOSTILE),
        bad,
        raised,
        RecoveryStep(9, 1, "quarantined", "monitor-a", "it goes on", {"producer": "ab" * 16}),
        RecoveryEnded(9, "restored", "monitor-a", "rows are as they were", "V-R-1.0"),
    )


def manifest(version: str, parents: tuple[str, ...] = (), **more: object) -> Manifest:
    """Return the manifest of a version without tables."""
    fields: dict[str, object] = {
        "version": version,
        "txn": version,
        "branch": "main",
        "depth": len(parents),
        "created": 1_700_000_000.0,
        "tables": {},
        "parents": parents,
        "base": parents[0] if parents else "",
    }
    return Manifest(**(fields | more))  # type: ignore[arg-type] # fields by name


def comparison(
    table: str = "items", rows: int = 120, dims: int = 8, seed: int = 0, sizes: Sizes | None = None
) -> TableComparison:
    """Return a table of which a third moved, three rows were born and two ended."""
    rng = np.random.default_rng(seed)
    ids = np.unique(rng.integers(2**63, 2**64 - 1, rows + 3, np.uint64))
    before = rng.normal(size=(rows + 3, dims)).astype(np.float32)
    after = before.copy()
    shoved = rng.permutation(rows)[: rows // 3]
    after[shoved] += rng.normal(size=(len(shoved), dims)).astype(np.float32)
    old, new = np.arange(rows), np.arange(2, rows + 3)
    shoved = np.sort(shoved[shoved >= 2])
    distance = np.linalg.norm(after[shoved] - before[shoved], axis=1).astype(np.float32)
    order = np.argsort(-distance)
    moved = Moved(ids[shoved][order], distance[order])
    chosen = choose(np.intersect1d(ids[old], ids[new]), ids, moved.ids, sizes or Sizes())
    kept_old = old[np.isin(ids[old], chosen.pool)]
    kept_new = new[np.isin(ids[new], chosen.pool)]
    domains = Domains(ids, np.arange(len(ids)) % 3, (HOSTILE, "news", "sport"))
    return compare_tables(
        table,
        Rows("V-R-1.0", ids[old], ids[kept_old], before[kept_old]),
        Rows("V-R-1.1", ids[new], ids[kept_new], after[kept_new]),
        moved,
        chosen,
        domains,
        ("pca",),
    )


def report(*tables: TableComparison) -> Report:
    """Return a whole report."""
    versions = [
        manifest("V-R-1.2", ("V-R-1.1",), base="V-R-1.0", created=1_700_000_900.0),
        manifest("V-R-1.1", ("V-R-1.0",), metadata={HOSTILE: HOSTILE}, created=1_700_000_300.0),
        manifest("V-R-1.0"),
    ]
    shown = timeline(events(), versions)
    return Report(
        group=HOSTILE,
        made=1_700_001_000.0,
        program="driftline 0",
        before="V-R-1.0" if tables else "",
        after="V-R-1.1",
        notes=(HOSTILE,),
        timeline=shown.entries,
        timeline_left_out=shown.left_out,
        alarms=alarms(events()),
        lineage=lineage(versions, {"V-R-1.2": [HOSTILE]}),
        tables=tables,
    )
