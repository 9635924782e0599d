"""The sides of the graph's comparison, each in a process of its own.

A side takes the same ticks in the same order and must have the lists of all rows ready after each.
Time is that of the side alone, all in: rebuilds and audits included, the world and the truth not.
"""

from __future__ import annotations

import os
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from bench.drift_world import DIMS, NEIGHBOURS, Floats, Plan, Rows, World, nearest, overlap, truth_around
from driftline.graph import CellSettings, G2Settings, GraphSettings, KnnGraph, MethodName, Metric

_THREADS = int(os.environ.get("OPENBLAS_NUM_THREADS", "1"))


class Side(Protocol):
    """A neighbour graph that follows changes."""

    def tick(self, chosen: Rows, new: Floats) -> None: ...
    def lists(self, rows: Rows) -> Rows: ...


class Ours:
    """`KnnGraph` by one of its methods."""

    def __init__(self, table: Floats, metric: str, method: str, g2: G2Settings | None = None) -> None:
        settings = GraphSettings(NEIGHBOURS, Metric(metric), MethodName(method), g2=g2 or G2Settings())
        self.graph = KnnGraph(settings).fit(np.arange(len(table)), table)

    def tick(self, chosen: Rows, new: Floats) -> None:
        self.graph.update(chosen, new)

    def lists(self, rows: Rows) -> Rows:
        return self.graph.kneighbours(rows).ids.astype(np.int64)

    def go_on_exactly(self) -> None:
        """Keep the lists as they are, renew them by comparing with every row from here on."""
        self.graph._fall_back("asked to")


class PynnDescent:
    """Rebuilt, or updated in place, each tick; 16 neighbours give its best recall for the time."""

    def __init__(self, table: Floats, metric: str, way: str) -> None:
        self._metric, self._way, self._table = (
            {"l2": "euclidean", "cosine": "cosine"}[metric],
            way,
            table.copy(),
        )
        self._build()

    def _build(self) -> None:
        import pynndescent

        self._index = pynndescent.NNDescent(
            self._table,
            metric=self._metric,
            n_neighbors=21 if self._way == "rebuild" else 16,
            n_jobs=_THREADS,
            random_state=1,
        )
        self._found = self._index.neighbor_graph[0]

    def tick(self, chosen: Rows, new: Floats) -> None:
        self._table[chosen] = new
        if self._way == "rebuild":
            self._build()
        else:
            self._index.update(xs_updated=new, updated_indices=chosen.tolist())
            self._found = self._index.neighbor_graph[0]

    def lists(self, rows: Rows) -> Rows:
        return _without_self(self._found[rows], rows)


class HnswUpdate:
    """hnswlib: each changed row is updated in place, then asked for its neighbours."""

    def __init__(self, table: Floats, metric: str, _: str) -> None:
        import hnswlib

        self._index = hnswlib.Index("l2", DIMS)  # unit rows under cosine
        self._index.init_index(len(table), M=16, ef_construction=100, random_seed=1)
        self._index.set_num_threads(_THREADS)
        self._index.add_items(table, np.arange(len(table)))
        self._index.set_ef(100)
        self._table = table.copy()
        self._found = np.concatenate(
            [
                self._ask(np.arange(start, min(start + 4096, len(table))))
                for start in range(0, len(table), 4096)
            ]
        )

    def _ask(self, rows: Rows) -> Rows:
        return _without_self(
            self._index.knn_query(self._table[rows], NEIGHBOURS + 1)[0].astype(np.int64), rows
        )

    def tick(self, chosen: Rows, new: Floats) -> None:
        self._table[chosen] = new
        self._index.add_items(new, chosen)
        self._found[chosen] = self._ask(chosen)

    def lists(self, rows: Rows) -> Rows:
        return self._found[rows]


class Usearch:
    """usearch: each changed row is removed and added, then asked for its neighbours."""

    def __init__(self, table: Floats, metric: str, _: str) -> None:
        from usearch.index import Index

        self._index = Index(
            ndim=DIMS, metric="l2sq", dtype="f32", connectivity=16, expansion_add=100, expansion_search=100
        )
        self._index.add(np.arange(len(table)), table, threads=_THREADS)
        self._found = self._ask(np.arange(len(table)), table)

    def _ask(self, rows: Rows, vectors: Floats) -> Rows:
        keys = self._index.search(vectors, NEIGHBOURS + 1, threads=_THREADS).keys
        return _without_self(np.asarray(keys, np.int64), rows)

    def tick(self, chosen: Rows, new: Floats) -> None:
        self._index.remove(chosen, threads=_THREADS)
        self._index.add(chosen, new, threads=_THREADS)
        self._found[chosen] = self._ask(chosen, new)

    def lists(self, rows: Rows) -> Rows:
        return self._found[rows]


SIDES: dict[str, Callable[[Floats, str], Side]] = {
    "g2": lambda table, metric: Ours(table, metric, "g2"),
    "exact": lambda table, metric: Ours(table, metric, "exact"),
    "m_order": lambda table, metric: Ours(table, metric, "m_order"),
    "pynndescent_rebuild": lambda table, metric: PynnDescent(table, metric, "rebuild"),
    "pynndescent_update": lambda table, metric: PynnDescent(table, metric, "update"),
    "hnswlib_update": lambda table, metric: HnswUpdate(table, metric, ""),
    "usearch": lambda table, metric: Usearch(table, metric, ""),
}


def run_side(side: str, plan: dict[str, Any]) -> dict[str, Any]:
    """Return seconds, peak memory and recall at each check of one side over the plan's ticks."""
    warnings.filterwarnings("ignore")
    settings = Plan(**plan)
    world = World(settings)
    if side.startswith("pynndescent"):
        PynnDescent(world.rows[:2000], settings.metric, "rebuild")  # numba compiles outside the time
    rng = np.random.default_rng(5)
    resting = _memory("VmRSS")
    _forget_peak()
    begun = time.perf_counter()
    subject = SIDES[side](world.rows, settings.metric)
    fitted = time.perf_counter() - begun
    checks = set(np.unique(np.linspace(1, settings.ticks, settings.checks).round().astype(int)).tolist())
    seconds: list[float] = []
    trace: list[dict[str, float]] = []
    peak = _memory("VmHWM")
    for tick in range(1, settings.ticks + 1):
        chosen, new = world.step()
        truth = truth_around(world, chosen, new, rng) if tick in checks else None
        if truth is None:
            world.move(chosen, new)
        old = subject.lists(truth.changed) if truth is not None else None
        _forget_peak()  # the truth took memory of its own
        begun = time.perf_counter()
        subject.tick(chosen, new)
        seconds.append(time.perf_counter() - begun)
        peak = max(peak, _memory("VmHWM"))
        if truth is None:
            continue
        assert old is not None
        changed = subject.lists(truth.changed)
        ours = _jaccard(old, changed)
        trace.append(
            {
                "tick": tick,
                "random": _recall(subject.lists(truth.random), truth.random_after),
                "changed": _recall(changed, truth.changed_after),
                "affected": _recall(subject.lists(truth.affected), truth.affected_after),
                "affected_rows": len(truth.affected),
                "jaccard_error": float(
                    np.abs(ours - _jaccard(truth.changed_before, truth.changed_after)).mean()
                ),
            }
        )
    return {
        "fit_seconds": fitted,
        "us_per_row": 1e6 * sum(seconds) / (settings.changed * len(seconds)),
        "peak_bytes": peak - resting,
        "trace": trace,
    }


def run_large(plan: dict[str, Any], ticks: dict[str, int]) -> dict[str, Any]:
    """Return µs per changed row of g2 and exact, tick by tick, on one world with 500 rows and 2% per tick.

    The first lists are made with few probes, and exact goes on from them: better ones would take minutes,
    exact ones an hour, and the ticks cost the same. So recall is told of just-changed rows only.
    """
    world = World(Plan(**plan))
    resting = _memory("VmRSS")
    _forget_peak()
    subject = Ours(world.rows, plan["metric"], "g2", G2Settings(cells=CellSettings(first_probes=4)))
    peak, answer = _memory("VmHWM"), dict[str, Any]()
    for changed in (500, plan["rows"] // 50):
        world.plan = Plan(**{**plan, "changed": changed})
        answer[str(changed)] = {"g2": []}
        for _ in range(ticks["g2"]):
            chosen, new = world.step()
            world.move(chosen, new)
            answer[str(changed)]["g2"].append(_timed(subject, chosen, new))
        peak = max(peak, _memory("VmHWM"))
        some = chosen[:: len(chosen) // 250]
        answer[str(changed)]["recall_changed"] = _recall(subject.lists(some), nearest(world.rows, some)[0])
        _forget_peak()
    subject.go_on_exactly()
    for changed in (500, plan["rows"] // 50):
        world.plan = Plan(**{**plan, "changed": changed})
        answer[str(changed)]["exact"] = []
        for _ in range(max(1, ticks["exact"] * 500 // changed) if changed > 500 else ticks["exact"]):
            chosen, new = world.step()
            world.move(chosen, new)
            answer[str(changed)]["exact"].append(_timed(subject, chosen, new))
    return {**answer, "peak_bytes": peak - resting}


def _timed(subject: Side, chosen: Rows, new: Floats) -> float:
    begun = time.perf_counter()
    subject.tick(chosen, new)
    return 1e6 * (time.perf_counter() - begun) / len(chosen)


def _jaccard(old: Rows, new: Rows) -> np.ndarray[Any, np.dtype[np.float64]]:
    both = overlap(old, new)
    return np.asarray(both / (2 * NEIGHBOURS - both), np.float64)


def _recall(found: Rows, truth: Rows) -> float:
    return float(overlap(found, truth).mean() / NEIGHBOURS) if len(found) else float("nan")  # null in JSON


def _without_self(found: Rows, rows: Rows) -> Rows:
    order = np.argsort(found == rows[:, None], axis=1, kind="stable")
    return np.take_along_axis(found, order, axis=1)[:, :NEIGHBOURS].astype(np.int64)


def _memory(field: str) -> int:
    """Return a field of this process's memory, in bytes; VmHWM is its peak since `_forget_peak`."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(field):
            return int(line.split()[1]) * 1024
    raise OSError(f"/proc/self/status has no {field}")


def _forget_peak() -> None:
    Path("/proc/self/clear_refs").write_text("5")
