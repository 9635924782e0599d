"""The alarm on real movement: an online trainer learns from a recorded stream, a tick every 1,000 events.

    python -m bench.alarm_real STREAM.csv.gz [--json FILE]

The promise is one false action in a thousand ticks: the whole stream takes some 190, over years, and a
promise per day would be one of nothing. The whole stream is healthy by definition; faults are planted in
copies of it.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Iterator
from copy import deepcopy
from dataclasses import replace
from pathlib import Path

import numpy as np
import orjson
from numpy.typing import NDArray

from bench.harness import say
from driftline.demo import sources
from driftline.demo.inprocess import InProcessTable
from driftline.demo.tables import Settings
from driftline.demo.trainer import Trainer
from driftline.drift import Action, Change, JudgeSettings, Watch
from driftline.graph import MOVED, GraphSettings, MethodName, Metric

_EVENTS = 1_000
_PROMISED = 1_000.0  # ticks per false action
_PATIENCE = 15  # ticks after which a fault counts as missed
FAULTS = ("single_node", "cluster", "rotation", "bad_push", "slow_poison")


class _Recording(InProcessTable):
    """A table that remembers which rows were pushed since the last cut."""

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings.items())
        self.touched: list[NDArray[np.uint64]] = []

    def push(self, ids: NDArray[np.uint64], grads: NDArray[np.float32], *, step: int, read: object) -> None:
        super().push(ids, grads, step=step, read=read)
        self.touched.append(np.unique(ids))


def changes(path: Path) -> Iterator[Change]:
    """Yield what each 1,000 events do to the items' rows; the bias dimension is left out."""
    events, settings = sources.csv(path), Settings()
    users, items = InProcessTable(settings.users()), _Recording(settings)
    trainer = Trainer(users, items, settings)
    none = np.empty(0, np.uint64)
    done = 0
    for step, start in enumerate(range(0, len(events), settings.batch)):
        part = events[start : start + settings.batch]
        trainer.step(step, part.users, part.items)
        done += len(part)
        if done >= _EVENTS:
            done -= _EVENTS
            ids = np.unique(np.concatenate(items.touched))
            items.touched = []
            rows, _ = items.rows_of(ids)
            yield Change(ids, rows[:, :-1].copy(), np.full(len(ids), MOVED), none)


def planted(healthy: list[Change], kind: str, at: int, strength: float) -> Iterator[Change]:
    """Yield the stream with a fault from tick `at` on: steps of the rows hit grow `strength`-fold."""
    rng = np.random.default_rng(at)
    known: dict[int, NDArray[np.float32]] = {}
    for tick, change in enumerate(healthy):
        vectors = change.vectors.copy()
        if tick >= at:
            # Rows known before; what is done to one stays, so it is added to what it is by now.
            old = np.stack([known.get(int(key), row) for key, row in zip(change.ids, vectors, strict=True)])
            steps = vectors - old
            hit = _hit(kind, tick - at, len(vectors), rng)
            grown = (
                min(strength, 1 + (strength - 1) * (tick - at + 1) / 10)
                if kind == "slow_poison"
                else strength
            )
            vectors[hit] = old[hit] + np.float32(grown) * steps[hit]
            if kind == "rotation":
                size = float(
                    np.median(np.linalg.norm(steps, axis=1)) / np.median(np.linalg.norm(old, axis=1))
                )
                vectors = _turned(vectors, strength * size, rng)
        known.update(zip(change.ids.tolist(), change.vectors, strict=True))
        yield replace(change, vectors=vectors)


def _hit(kind: str, since: int, rows: int, rng: np.random.Generator) -> NDArray[np.bool_]:
    if kind == "single_node":
        return np.asarray(np.arange(rows) == rows // 2, np.bool_)
    if kind == "cluster":
        return np.asarray(rng.random(rows) < 0.1, np.bool_)
    if kind == "bad_push":
        return np.full(rows, since == 0)
    return np.full(rows, kind == "slow_poison")


def _turned(rows: NDArray[np.float32], angle: float, rng: np.random.Generator) -> NDArray[np.float32]:
    """Turn all rows in random planes by `angle`."""
    basis = np.linalg.qr(rng.standard_normal((rows.shape[1], rows.shape[1])))[0]
    inner = rows @ basis
    even, odd = inner[:, 0:-1:2].copy(), inner[:, 1::2].copy()
    inner[:, 0:-1:2] = np.cos(angle) * even - np.sin(angle) * odd
    inner[:, 1::2] = np.sin(angle) * even + np.cos(angle) * odd
    return np.asarray(inner @ basis.T, np.float32)


def main() -> None:
    """Judge the stream as it is, and with faults."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("stream", type=Path)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--at", type=int, default=140, help="tick at which faults begin")
    asked = parser.parse_args()
    healthy = list(changes(asked.stream))
    settings = JudgeSettings(
        false_actions_per_day=1.0,
        ticks_per_day=_PROMISED,
        least_ticks=40,
        settle_ticks=5,
        refit_ticks=5,
        cool_ticks=5,
    )
    answer: dict[str, object] = {
        "ticks": len(healthy),
        "promised_per_tick": 1 / _PROMISED,
        "planted_at": asked.at,
    }
    watch = Watch(GraphSettings(10, Metric.COSINE, MethodName.EXACT), settings)
    before = _judged(watch, enumerate(healthy[: asked.at]))
    resting = deepcopy(watch)  # faults begin here; the history is judged once
    after = _judged(watch, enumerate(healthy[asked.at :], asked.at))
    standings = {key: before[1].get(key, 0) + after[1].get(key, 0) for key in {*before[1], *after[1]}}
    answer["healthy"] = {"actions": before[0] + after[0], "standings": standings}
    say(f"{len(healthy)} healthy ticks: actions {before[0] + after[0]}, {standings}")
    for kind in FAULTS:
        for strength in (2.0, 4.0, 8.0):
            stream = enumerate(planted(healthy[: asked.at + _PATIENCE], kind, asked.at, strength))
            actions, _ = _judged(
                deepcopy(resting), ((tick, each) for tick, each in stream if tick >= asked.at)
            )
            answer[f"{kind}.{strength:g}x"] = actions[:1]
            say(f"{kind} {strength:g}x: {actions[:1] or f'not found in {_PATIENCE} ticks'}")
            if asked.json is not None:
                asked.json.write_bytes(orjson.dumps(answer, option=orjson.OPT_INDENT_2))


def _judged(
    watch: Watch, stream: Iterable[tuple[int, Change]]
) -> tuple[list[dict[str, object]], dict[str, int]]:
    actions: list[dict[str, object]] = []
    standings: dict[str, int] = {}
    for tick, change in stream:
        judged = watch.step(change)
        if judged is None:
            continue
        verdict = judged.verdict
        standings[verdict.standing.value] = standings.get(verdict.standing.value, 0) + 1
        if verdict.action is not Action.NONE:
            rule = None if verdict.rule is None else verdict.rule.value
            actions.append({"tick": tick, "rule": rule, "nodes": len(verdict.nodes), "onset": verdict.onset})
    return actions, standings


if __name__ == "__main__":
    main()
