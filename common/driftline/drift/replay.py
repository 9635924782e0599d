"""Yesterday's data judged again: recorded row states through graph and judge.

Invariant: the same records, settings and seeds give the same verdicts; nothing but the records is read.
Rows are kept by newest LSN, as every reader of the updates topic keeps them, so records sent twice or
out of order do no harm. A tick is cut after `rows` changed rows, or where the caller says.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from driftline.drift.judge import JudgeState, judge
from driftline.drift.measures.base import Floats, Ids
from driftline.drift.observation import Observation, observe
from driftline.drift.settings import JudgeSettings
from driftline.drift.verdict import Verdict
from driftline.errors import InputError
from driftline.frames.states import GRADIENT_CAUSE, RESTORE_CAUSE, TOMBSTONE, States
from driftline.graph.knn import GraphSettings, KnnGraph
from driftline.graph.metric import unusable
from driftline.graph.results import MOVED, PUT, REMOVED, RESTORED, GraphTick


@dataclass(frozen=True, slots=True, eq=False)
class Change:
    """What one tick did to the rows of a table: each id once, as it stands at the tick's end."""

    ids: Ids  # (n,) rows that live
    vectors: Floats  # (n, d)
    cause: NDArray[np.uint8]  # (n,) MOVED, PUT or RESTORED
    removed: Ids
    learning_rate: float | None = None
    tick: int | None = None  # its number, where ticks are numbered; else they are counted


@dataclass(slots=True)
class Collector:
    """Gathers row states into ticks: keeps the newest of each id."""

    _lsn: dict[int, int] = field(default_factory=dict)
    _rows: dict[int, tuple[NDArray[np.float32], int]] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self._rows)

    def add(self, states: States) -> None:
        """Take in row states; older ones than already seen are passed over."""
        columns = zip(
            states.ids.tolist(), states.lsn.tolist(), states.flags.tolist(), states.rows, strict=True
        )
        for key, lsn, flags, row in columns:
            if lsn > self._lsn.get(key, -1):
                self._lsn[key] = lsn
                self._rows[key] = (row, flags)

    def cut(self) -> Change:
        """Return what was gathered since the last cut."""
        live = {key: each for key, each in self._rows.items() if not each[1] & int(TOMBSTONE)}
        gone = sorted(set(self._rows) - set(live))
        keys = sorted(live)
        flags = np.array([live[key][1] for key in keys], np.uint8)
        rows = [live[key][0] for key in keys]
        cause = np.where(flags & GRADIENT_CAUSE, MOVED, np.where(flags & RESTORE_CAUSE, RESTORED, PUT))
        self._rows = {}
        return Change(
            np.array(keys, np.uint64),
            np.stack(rows).astype(np.float32) if rows else np.empty((0, 0), np.float32),
            cause.astype(np.uint8),
            np.array(gone, np.uint64),
        )


@dataclass(frozen=True, slots=True, eq=False)
class Judged:
    """One tick of a replay."""

    tick: GraphTick
    observation: Observation
    verdict: Verdict


class Watch:
    """A table's rows, graph and judge, going on tick by tick."""

    def __init__(
        self, graph: GraphSettings, settings: JudgeSettings, state: JudgeState | None = None
    ) -> None:
        self._settings = settings
        self.graph = KnnGraph(graph)
        self.state = state or JudgeState()
        self._rows: dict[int, NDArray[np.float32]] = {}  # as they are, unscaled: offsets are of these
        self._updates: dict[int, int] = {}
        self._begun = False

    def step(self, change: Change) -> Judged | None:
        """Judge one tick; None for the first, which only makes the graph.

        Raises InputError if the dimensions change.
        """
        ids, vectors, cause, broken = self._usable(change)
        if not self._begun:
            if not len(ids):
                return None
            self.graph.fit(ids, vectors)
            self._keep(ids, vectors)
            self._begun = True
            return None
        tick = self.graph.update(ids, vectors, removed=change.removed, cause=cause)
        new = dict(zip(ids.tolist(), vectors, strict=True))
        none = np.zeros(vectors.shape[1] if len(ids) else self._dims, np.float32)
        old = np.stack([self._rows.get(key, none) for key in tick.ids.tolist()] or [none])[: len(tick.ids)]
        now = np.stack([new.get(key, self._rows.get(key, none)) for key in tick.ids.tolist()] or [none])[
            : len(tick.ids)
        ]
        updates = np.array([self._updates.get(key, 0) for key in tick.ids.tolist()], np.int64)
        seen = observe(
            tick,
            self.graph.settings.metric,
            old,
            now,
            updates,
            broken=broken,
            learning_rate=change.learning_rate,
        )
        if change.tick is not None:
            seen = replace(seen, tick=change.tick)
        self._keep(ids, vectors)
        for key in tick.ids[tick.cause == REMOVED].tolist():
            self._rows.pop(key, None)
            self._updates.pop(key, None)
        for key in ids[cause == MOVED].tolist():
            self._updates[key] = self._updates.get(key, 0) + 1
        self.state, verdict = judge(self.state, seen, self._settings)
        return Judged(tick, seen, verdict)

    @property
    def _dims(self) -> int:
        return len(next(iter(self._rows.values()))) if self._rows else 1

    def _usable(self, change: Change) -> tuple[Ids, Floats, NDArray[np.uint8], Ids]:
        if not len(change.ids):
            return change.ids, np.empty((0, self._dims), np.float32), change.cause, change.ids
        if self._rows and change.vectors.shape[1] != self._dims:
            raise InputError(f"rows of {change.vectors.shape[1]} dimensions in a table of {self._dims}")
        good = ~unusable(change.vectors, self.graph.settings.metric)
        finite = np.isfinite(change.vectors).all(axis=1)
        # A zero row has no place under cosine, but there is nothing wrong with it.
        return change.ids[good], change.vectors[good], change.cause[good], change.ids[~finite]

    def _keep(self, ids: Ids, vectors: Floats) -> None:
        self._rows.update(zip(ids.tolist(), vectors, strict=True))


def replay(
    changes: Iterable[Change], graph: GraphSettings, settings: JudgeSettings, state: JudgeState | None = None
) -> Iterator[Judged]:
    """Judge recorded ticks one after the other; the first makes the graph and is not judged."""
    watch = Watch(graph, settings, state)
    try:
        for change in changes:
            judged = watch.step(change)
            if judged is not None:
                yield judged
    finally:
        watch.graph.close()
