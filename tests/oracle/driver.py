"""Feeds an oracle records one by one: for tests of its rules, and a recipe for making logs.

Invariant: every record is what a well-behaved producer or router would write,
unless the caller overrides a field in order to break it.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from tests.oracle import writing
from tests.oracle.hashing import shard_of
from tests.oracle.model import Expected, Outcome
from tests.oracle.shard import Shard
from tests.oracle.spec import parse
from tests.oracle.wire import OPS_PRODUCER

Headers = tuple[tuple[str, bytes], ...]


@dataclass(frozen=True, slots=True)
class LogRecord:
    """One record of a log made for a test."""

    offset: int
    timestamp: int
    value: bytes
    headers: Headers = ()


KEYS = {"k1": b"secret", "retired": b"old secret"}
SPEC: dict[str, object] = {
    "name": "items",
    "group": "g",
    "dim": 2,
    "shards": 2,
    "optimizer": {"kind": "sgd", "lr": 0.5},
    "init": {"seed": 1, "scale": 0.1},
    "policy": {"max_frame": 4096, "without_read_pos": "apply", "producer_ttl_ms": 1000},
    "machine_version": 1,
    "dtype": "f32",
}
MINE = [i for i in range(40) if shard_of(i, 2) == 0]
FOREIGN = next(i for i in range(40) if shard_of(i, 2) == 1)
P, Q = b"p" * 16, b"q" * 16


class Driver:
    """Feeds an oracle one record after the other."""

    def __init__(self, spec: Mapping[str, object] = SPEC, generation: int = 1) -> None:
        self.versions: dict[int, Expected] = {}
        self.shard = Shard(0, keys=KEYS, generation=generation, versions=lambda body: self.versions)
        self.time = 1000
        self.ops = 0
        self.op("spec", spec)

    def record(self, value: bytes, headers: Headers = ()) -> Outcome:
        return self.shard.apply(LogRecord(self.shard.position().next, self.time, value, headers))

    def op(self, kind: str, body: Mapping[str, object] | None = None, seq: int | None = None) -> Outcome:
        self.ops = self.ops + 1 if seq is None else seq
        value = writing.op(kind, "items", 0, self.ops, body)
        return self.record(value, writing.sign(value, "k1", KEYS["k1"]))

    def event(
        self,
        kind: str,
        ids: Sequence[int],
        values: Sequence[Sequence[float]] | None = None,
        *,
        seq: int,
        producer: bytes = P,
        epoch: int = 0,
        state: Sequence[Sequence[float]] | None = None,
        width: int = 2,
        meta: Mapping[str, str] | None = None,
    ) -> Outcome:
        tensors = {"ids": writing.ids_tensor(ids)}
        if values is not None:
            name = "grads" if kind == "gradient" else "rows"
            tensors[name] = writing.floats_tensor(values, width)
        if state is not None:
            tensors["state"] = writing.floats_tensor(state, len(state[0]))
        base = writing.metadata(kind, "items", 0, producer, seq, epoch)
        return self.record(writing.encode(base | dict(meta or {}), tensors))

    def gradient(self, ids: Sequence[int], seq: int, meta: Mapping[str, str] | None = None) -> Outcome:
        return self.event("gradient", ids, [[1.0, 2.0]] * len(ids), seq=seq, meta=meta)

    def restore_rows(self, ids: Sequence[int], rows: Sequence[Sequence[float]]) -> Outcome:
        self.ops += 1
        meta = writing.metadata("restore-rows", "items", 0, OPS_PRODUCER, self.ops)
        tensors = {"ids": writing.ids_tensor(ids), "rows": writing.floats_tensor(rows, 2)}
        width = len(parse(SPEC).newborn_state)
        tensors["state"] = writing.floats_tensor([[0.0] * width] * len(rows), width)
        value = writing.encode(meta, tensors)
        return self.record(value, writing.sign(value, "k1", KEYS["k1"]))


def spec_with(**changes: object) -> dict[str, object]:
    spec = copy.deepcopy(SPEC)
    for path, value in changes.items():
        *outer, key = path.split("__")
        inner = spec
        for name in outer:
            inner = inner[name]  # type: ignore[assignment]
        inner[key] = value
    return spec
