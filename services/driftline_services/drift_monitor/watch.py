"""One table as an instance watches it: rows, graph and judge, from tick to tick.

Invariant: what a tick is judged to be is a function of the state before it and of what was gathered
in it; so a tick that is judged again after a crash, from a checkpoint and the same updates, gives the
same verdict where the graph is exact. Memory is bounded: beyond `limit` rows a part of the ids, chosen
by their hash, is watched, which estimates the same drift.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from statistics import median

import numpy as np
from numpy.typing import NDArray

from driftline.control import DriftVerdict
from driftline.control.drift_events import NODES
from driftline.drift import (
    Action,
    JudgeSettings,
    JudgeState,
    Observation,
    Verdict,
    accepted,
    judge,
    observe,
    rolled_back,
)
from driftline.drift.verdict import Standing
from driftline.graph import MOVED, PUT, GraphSettings, KnnGraph, unusable
from driftline.ids import splitmix64
from driftline_services.drift_monitor.gathering import Gathered
from driftline_services.drift_monitor.producers import Figures
from driftline_services.drift_monitor.rows import Floats, Ids, WatchedRows

_TICKS = 4_096  # whose ops are remembered: an onset further back is not told
_USUAL = 101  # ticks by which the usual number of updates per row is known
_BULK = 0.1  # of the rows put at once, by whom it may be, behind which calibration begins anew
_WHOLE = 1 << 32


@dataclass(frozen=True, slots=True)
class Scope:
    """What of a table an instance judges, and who it is."""

    table: str
    shards: tuple[int, ...]
    of: int
    instance: str


@dataclass(slots=True)
class Ticks:
    """Which barrier ended which tick."""

    number: int = 0
    ops: deque[tuple[int, int]] = field(default_factory=lambda: deque(maxlen=_TICKS))
    per_row: deque[float] = field(default_factory=lambda: deque(maxlen=_USUAL))

    def op_of(self, number: int | None) -> int:
        """Return the barrier that ended tick `number`, 0 if that is not known."""
        found = [op for tick, op in self.ops if tick == number] if number is not None else []
        return found[0] if found else 0

    def before(self, op: int) -> int:
        """Return the newest barrier before `op`, 0 if none is known."""
        return max((each for _, each in self.ops if each < op), default=0)


class TableWatch:
    """Judges one table's ticks. Not thread-safe: one tick at a time."""

    def __init__(
        self, scope: Scope, dims: int, graph: GraphSettings, settings: JudgeSettings, limit: int
    ) -> None:
        self.scope, self.settings, self._graph_settings, self._limit = scope, settings, graph, limit
        self.rows = WatchedRows(dims)
        self.graph = KnnGraph(graph)
        self.state = JudgeState()
        self.ticks = Ticks()
        self.begun = False  # the graph has been made
        self.share = _WHOLE  # ids whose hash is below it are watched
        self.history = 0  # ticks up to this op were over when the watch began: told, not acted upon
        self._frozen = False  # an alarm is open: nothing is learned
        self.judged = 0

    @property
    def nbytes(self) -> int:
        """Bytes of rows and graph, but for the HNSW index, which cannot be asked."""
        return self.rows.nbytes + self.graph.nbytes

    def tick(
        self,
        op: int,
        time: int,
        found: Gathered,
        producers: Mapping[str, Figures],
        *,
        whole: bool,
        complete: bool,
    ) -> DriftVerdict:
        """Judge the tick that barrier `op` ends. `whole`: the producers' figures cover all of it."""
        begun = self.ticks.ops[-1][1] if self.ticks.ops else 0
        self.ticks.number += 1
        self.ticks.ops.append((self.ticks.number, op))
        known = self.state.calibration
        if known.frozen != self._frozen:
            self.state = replace(self.state, calibration=known.freeze() if self._frozen else known.thaw())
        verdict = self._judge(found, producers, whole=whole, complete=complete)
        if op <= self.history and verdict.action is not Action.NONE:
            why = _both(verdict, "it was over before this monitor began: nothing is undone")
            evidence = replace(verdict.evidence, why=why)
            verdict = replace(verdict, action=Action.NONE, evidence=evidence)
        self.judged += 1
        onset = self.ticks.op_of(verdict.onset)
        nodes = verdict.nodes[:NODES].tolist()
        return DriftVerdict(
            op,
            self.scope.table,
            self.scope.shards,
            self.scope.of,
            self.scope.instance,
            time,
            begun,
            self.settings.mode.value,
            verdict.standing.value,
            verdict.rule.value if verdict.rule is not None else "",
            verdict.action.value,
            tuple(nodes),
            len(verdict.nodes),
            onset,
            self.ticks.before(onset) if onset else 0,
            asdict(verdict.evidence),
            {name: list(each.told) for name, each in sorted(producers.items())},
        )

    def put_back(self, before: Ids, ids: Ids, vectors: Floats) -> None:
        """Have rows `ids` in the place of those of `before`, as a restore has put them."""
        good = self._watched(ids) & ~unusable(vectors, self._graph_settings.metric)
        self.rows.drop(before[~np.isin(before, ids[good])])
        self.rows.put(ids[good], vectors[good], np.zeros(int(np.count_nonzero(good)), np.bool_))
        self._make_graph()
        self.state = rolled_back(self.state, self.settings)

    def stand_on(self, ids: Ids, vectors: Floats) -> None:
        """Begin with these rows."""
        self._fit_in(len(ids))
        mine = self._watched(ids) & ~unusable(vectors, self._graph_settings.metric)
        self.rows.restore(ids[mine], vectors[mine], np.zeros(int(np.count_nonzero(mine)), np.int32))
        self._make_graph()

    def adopt(self, near: Ids) -> None:
        """Make the graph of the rows there are, with known neighbours (n, k) in the order of their ids."""
        self.graph.close()
        self.graph = KnnGraph(self._graph_settings).adopt(self.rows.ids, self.rows.vectors, near)

    def freeze(self, on: bool) -> None:
        """Learn nothing while an alarm is open, or learn again; from the next tick on."""
        self._frozen = on

    def close(self) -> None:
        """Wait for a rebuild under way."""
        self.graph.close()

    # -- a tick

    def _judge(
        self, found: Gathered, producers: Mapping[str, Figures], *, whole: bool, complete: bool
    ) -> Verdict:
        mine = self._watched(found.ids)
        live, removed = mine & ~found.dead, found.ids[mine & found.dead]
        ids, vectors, moved = found.ids[live], found.vectors[live], found.by_gradient[live]
        good = ~unusable(vectors, self._graph_settings.metric)
        broken = ids[~np.isfinite(vectors).all(axis=1)]
        ids, vectors, moved = ids[good], vectors[good], moved[good]
        if not self.begun:
            self.rows.drop(removed)
            self.rows.put(ids, vectors, moved)
            if len(self.rows):
                self._make_graph()
            return self._unjudged("the graph has just been made")
        new = ~self.rows.known(ids)
        if len(removed) or not moved.all():
            # First, and apart: a neighbour that was put elsewhere, or deleted, is not what training did.
            self.graph.update(ids[~moved], vectors[~moved], removed=removed, cause=PUT)
        tick = self.graph.update(ids[moved], vectors[moved], cause=MOVED)
        old, updates = self.rows.take(tick.ids)
        self.rows.put(ids, vectors, moved & ~new)
        now, _ = self.rows.take(tick.ids)
        self.rows.drop(removed)
        rate = self._rate(producers, int(np.count_nonzero(moved)), whole=whole)
        seen = observe(
            tick,
            self._graph_settings.metric,
            old,
            now,
            updates,
            broken=broken,
            complete=complete,
            learning_rate=rate,
        )
        self.state, verdict = judge(self.state, replace(seen, tick=self.ticks.number), self.settings)
        if tick.note:
            verdict = replace(verdict, evidence=replace(verdict.evidence, why=_both(verdict, tick.note)))
        if len(self.rows) > self._limit:
            self._thin()
        if int(np.count_nonzero(~moved & ~new)) > _BULK * len(self.rows):
            self.state = accepted(self.state)  # what it has learned is of a table that is no more
        return verdict

    def _rate(self, producers: Mapping[str, Figures], moved: int, *, whole: bool) -> float | None:
        """Return by how much longer than usual the tick was, in updates per row; None: not longer.

        Rows that had more updates than usual, after a pause of the barriers say, have come further
        without being worse trained. A shorter tick is not stretched: its rows only look quieter.
        """
        rows = sum(each.rows for each in producers.values())
        if not whole or not rows or not moved:
            return None
        usual = median(self.ticks.per_row) if self.ticks.per_row else None
        self.ticks.per_row.append(rows / moved)
        return max(1.0, rows / moved / usual) if usual else None

    def _unjudged(self, why: str) -> Verdict:
        none = np.empty(0)
        seen = Observation(
            self.ticks.number,
            none.astype(np.uint64),
            {},
            none.astype(np.int64),
            none,
            0.0,
            0.0,
            complete=False,
        )
        _, verdict = judge(JudgeState(), seen, self.settings)
        self.state = replace(self.state, tick=self.ticks.number, standing=None)
        evidence = replace(verdict.evidence, why=why)
        return replace(verdict, standing=Standing.CALIBRATING, action=Action.NONE, evidence=evidence)

    # -- memory

    def _watched(self, ids: Ids) -> NDArray[np.bool_]:
        if self.share == _WHOLE:
            return np.ones(len(ids), np.bool_)
        return (splitmix64(~ids) >> np.uint64(32)) < np.uint64(self.share)

    def _fit_in(self, rows: int) -> None:
        while rows * self.share // _WHOLE > self._limit:
            self.share //= 2

    def _thin(self) -> None:
        """Watch half of the ids from now on; the graph is made anew of them, and nobody is judged by that."""
        self.share //= 2
        ids = self.rows.ids
        self.rows.drop(ids[~self._watched(ids)])
        self._make_graph()

    def _make_graph(self) -> None:
        self.graph.close()
        self.graph = KnnGraph(self._graph_settings).fit(self.rows.ids, self.rows.vectors)
        self.begun = True


def _both(verdict: Verdict, note: str) -> str:
    return "; ".join(filter(None, (verdict.evidence.why, note)))


def strictest(verdicts: Sequence[DriftVerdict]) -> DriftVerdict | None:
    """Return the one that calls for most; of equal ones the first."""
    return max(verdicts, key=severity, default=None)


def severity(verdict: DriftVerdict) -> int:
    """Return how much a verdict calls for.

    Examples
    --------
    >>> severity(DriftVerdict(1, "t", (0,), 1, "a", 0, 0, "auto", "ok", "", "none", (), 0, 0, 0))
    0
    """
    order = {Action.NODE_ROLLBACK.value: 1, Action.FULL_ROLLBACK.value: 2}
    return order.get(verdict.action, 0)
