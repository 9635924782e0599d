"""The stages of one side of the version benchmark, each in a process of its own (see `bench.child`).

Invariant: whatever a stage times was first compared with the world, bit for bit, by the stage
`check`; a difference ends the run.

Policy on local disk: a version counts as committed when all of it is on disk. driftline synchronises
its files itself; what a peer's commit leaves unsynchronised is synchronised for it within the
time (files side by side, then folders; finding out which files is not timed).
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

from bench.versions_side import Side, Where, evict, files_of, synchronise
from bench.versions_world import BRANCH, Plan, World, queries

SIDES = {
    "driftline": "bench.versions_ours:Ours",
    "lance_overlays": "bench.versions_lance:LanceOverlays",
    "lance_merge": "bench.versions_lance:LanceMerge",
    "safetensors": "bench.versions_ours:FullSafetensors",
    "deltalake": "bench.versions_tables:Delta",
    "icechunk": "bench.versions_tables:Icechunk",
}
_WARM = 7


def side_of(name: str, where: dict[str, Any]) -> Side:
    """Return a side."""
    module, _, kind = SIDES[name].partition(":")
    found: Side = getattr(import_module(module), kind)(Where(**where))
    return found


def write(side: str, where: dict[str, Any], plan: dict[str, Any]) -> dict[str, Any]:
    """Store everything; return the times of the commits and what they left on disk."""
    stage, world = side_of(side, where), World(Plan(**plan))
    # the server's own synchronising is the same for everybody
    theirs = side != "driftline" and not stage.where.far
    folder, stored = stage.where.folder, 0
    times: list[float] = []
    branch: list[float] = []
    always = world.alive.copy()
    begun = time.perf_counter()
    stage.create(world.base())
    if theirs:
        synchronise(folder, {}, files_of(folder))
    base_seconds, base = time.perf_counter() - begun, files_of(folder)
    sizes = base
    for step in world.steps():
        if step.branch == BRANCH:
            if not stage.branches:
                break
            if not branch:
                sizes = files_of(folder)
                stage.fork(world.plan.middle)
        always[step.dead] = False
        ready = stage.prepare(step)
        before = files_of(folder) if theirs else {}
        begun = time.perf_counter()
        name = stage.commit(step, ready)
        taken = time.perf_counter() - begun
        if theirs:
            after = files_of(folder)
            begun = time.perf_counter()
            synchronise(folder, before, after)
            taken += time.perf_counter() - begun
        stage.note(step.number, name)
        (times if step.branch == "main" else branch).append(taken)
        stored += step.stored if step.branch == "main" else 0
    if not branch:
        sizes = files_of(folder)
    np.save(Path(stage.where.notes) / "alive.npy", always)  # to look up: what lives in every version
    grown = {path: size - base.get(path, (0, 0))[0] for path, (size, _) in sizes.items()}
    return {
        "base_seconds": base_seconds,
        "base_bytes": sum(size for size, _ in base.values()),
        "commit": times,
        "branch_commit": branch,
        "stored_rows": stored,
        "data_bytes": sum(size for path, size in grown.items() if stage.is_data(path)),
        "metadata_bytes": sum(size for path, size in grown.items() if not stage.is_data(path)),
        "objects": len(sizes) - len(base),
    }


def check(side: str, where: dict[str, Any], plan: dict[str, Any], every: int) -> dict[str, Any]:
    """Compare versions with the world: whole tables, look-ups and differences."""
    stage, shape = side_of(side, where), Plan(**plan)
    world, compared = World(shape), 0
    for step in world.steps():
        if step.branch == BRANCH and not stage.branches:
            break
        looked_at = {1, shape.middle, shape.versions, shape.versions + shape.branch}
        if step.number not in looked_at and step.number % every:
            continue
        view = stage.open(step.number)
        ids, rows = view.load()
        order = np.argsort(ids)
        expected = world.ids()
        _same(side, step.number, ids[order], expected)
        _same(side, step.number, rows[order].view(np.uint32), world.values[expected].view(np.uint32))
        for wanted in queries(shape, world.alive, 2):
            _same(side, step.number, view.rows(wanted).view(np.uint32), world.values[wanted].view(np.uint32))
        compared += 1
    number = shape.middle
    found = stage.diff(number, number + 1)
    step = next(each for each in World(shape).steps() if each.number == number + 1)
    _same(side, number, found, np.sort(np.concatenate([step.ids, step.new_ids, step.dead])))
    return {"compared": compared}


def _same(side: str, version: int, found: Any, expected: Any) -> None:
    if not np.array_equal(found, expected):
        raise AssertionError(f"{side}, version {version}: not what was stored")


def lookup(side: str, where: dict[str, Any], plan: dict[str, Any], version: int) -> dict[str, Any]:
    """Open a version and read 1,000 ids, nothing cached; then other ids of the opened version."""
    shape = Plan(**plan)
    stage = side_of(side, where)
    wanted = queries(shape, np.load(Path(stage.where.notes) / "alive.npy"), 1 + _WARM)
    _warm_up(stage)
    evict(stage.where.folder)
    begun = time.perf_counter()
    view = stage.open(version)
    view.rows(wanted[0])
    cold = time.perf_counter() - begun
    for ids in wanted[1:3]:  # the second look-up may build what the later ones use
        view.rows(ids)
    warm = [_timed(partial(view.rows, ids)) for ids in wanted[3:]]
    return {"cold": cold, "warm": sorted(warm)[len(warm) // 2]}


def load(side: str, where: dict[str, Any], version: int) -> float:
    """Return how long opening and loading a whole version takes, files in the page cache."""
    stage = side_of(side, where)
    _warm_up(stage)
    return _timed(lambda: stage.open(version).load())


def differ(side: str, where: dict[str, Any], before: int, after: int) -> float:
    """Return how long the difference of two versions takes, files in the page cache."""
    stage = side_of(side, where)
    _warm_up(stage)
    return _timed(lambda: stage.diff(before, after))


def gc(side: str, where: dict[str, Any], kept: int) -> dict[str, float]:
    """Remove the oldest versions; return how long it took and the bytes it gave back."""
    stage = side_of(side, where)
    _warm_up(stage)
    before = sum(size for size, _ in files_of(stage.where.folder).values())
    seconds = _timed(lambda: stage.collect(kept))
    after = sum(size for size, _ in files_of(stage.where.folder).values())
    stage.open(kept).load()
    return {"seconds": seconds, "freed": before - after}


def _warm_up(stage: Side) -> None:
    """Import what the side needs: what is timed is its work, not Python's."""
    for module in ("zstandard", "safetensors.numpy", "obstore", "pyarrow.dataset", "orjson"):
        import_module(module)
    for module in {"LanceOverlays": ["lance"], "LanceMerge": ["lance"], "Delta": ["deltalake"]}.get(
        type(stage).__name__, []
    ):
        import_module(module)
    if type(stage).__name__ == "Icechunk":
        import_module("zarr")
        import_module("icechunk")


def _timed(work: Callable[[], object]) -> float:
    begun = time.perf_counter()
    work()
    return time.perf_counter() - begun


os.environ.setdefault("LANCE_CPU_THREADS", "2")
