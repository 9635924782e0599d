"""The table spec: everything that decides what a shard accepts and computes.

Invariant: a spec is part of the log. It is born by a `spec` op and changes only
by another one, and only in its policies: dimension, dtype, shards, optimizer
kind and initial rows are fixed for the life of a table.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from driftline.errors import ConfigError
from driftline.shard.optimizers import KINDS, Optimizer, make_optimizer

MACHINE_VERSION = 1
"""The arithmetic and the rules of acceptance that this release implements."""

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,99}")
FRAME_OVERHEAD = 1024  # bytes of a frame besides its tensors: header JSON and padding, generously
APPLY, DROP = "apply", "drop"


@dataclass(frozen=True, slots=True)
class Init:
    """Initial rows: uniform in [−scale, scale), from a generator keyed by (seed, id)."""

    seed: int = 0
    scale: float = 0.01


@dataclass(frozen=True, slots=True)
class Policy:
    """What a shard accepts beyond the frame format."""

    max_frame: int = 1 << 20  # bytes
    without_read_pos: str = APPLY  # gradients that do not say which rows they were made from
    producer_ttl_ms: int = 7 * 24 * 3600 * 1000  # of log time


@dataclass(frozen=True, slots=True)
class TableSpec:
    """A table: its shape, its optimizer and its policies."""

    name: str
    dim: int
    group: str = "default"
    shards: int = 8
    optimizer: Mapping[str, object] = field(default_factory=lambda: {"kind": "rowwise_adagrad"})
    init: Init = field(default_factory=Init)
    policy: Policy = field(default_factory=Policy)
    dtype: str = "f32"
    machine_version: int = MACHINE_VERSION
    frame_bytes: int | None = None
    """Size at which producers cut a push into frames, for the table's life: a trainer that resumes
    must cut a step as it did before. None until the table is made: then `policy.max_frame`."""

    def __post_init__(self) -> None:
        names: dict[str, object] = {"table name": self.name, "group": self.group}  # JSON may hold anything
        for label, name in names.items():
            if not isinstance(name, str) or not _NAME.fullmatch(name):
                raise ConfigError(f"{label} {name!r}: 1 to 100 letters, digits, '_' or '-'")
        _whole("dim", self.dim, 1, 8192)
        _whole("shards", self.shards, 1, 4096)
        _whole("machine_version", self.machine_version, 1, MACHINE_VERSION)
        if self.dtype != "f32":
            raise ConfigError(f"table {self.name}: dtype {self.dtype!r}; rows are 'f32'")
        _whole("init.seed", self.init.seed, 0, 2**64 - 1)
        if not _number(self.init.scale) or not 0 <= self.init.scale < 1e30:
            raise ConfigError(
                f"table {self.name}: init.scale {self.init.scale!r} is not a number of at least 0"
            )
        _whole("policy.max_frame", self.policy.max_frame, 4096, 8 << 20)
        _whole("policy.producer_ttl_ms", self.policy.producer_ttl_ms, 1000, 2**53)
        if self.policy.without_read_pos not in (APPLY, DROP):
            raise ConfigError(f"policy.without_read_pos {self.policy.without_read_pos!r}: {APPLY} or {DROP}")
        if self.frame_bytes is not None:
            _whole("frame_bytes", self.frame_bytes, 4096, 8 << 20)
            if self.frame_bytes > self.policy.max_frame:
                raise ConfigError(
                    f"table {self.name}: policy.max_frame {self.policy.max_frame} is below "
                    f"{self.frame_bytes}, the size of the frames that its producers send"
                )
        least = FRAME_OVERHEAD + 8 + 4 * (self.dim + self.state_size)
        if self.cut_bytes < least:
            raise ConfigError(f"table {self.name}: policy.max_frame {self.cut_bytes}: one row takes {least}")

    @property
    def cut_bytes(self) -> int:
        """Size at which producers cut a push into frames."""
        return self.frame_bytes or self.policy.max_frame

    def make_optimizer(self) -> Optimizer:
        """Return the optimizer; raises ConfigError."""
        return make_optimizer(KINDS, self.optimizer)

    @property
    def state_size(self) -> int:
        """Number of float32 of optimizer state per row."""
        return self.make_optimizer().state_size(self.dim)

    @property
    def scale(self) -> np.float32:
        """Scale of the initial rows, as the generator uses it."""
        return np.float32(self.init.scale)

    def to_json(self) -> dict[str, Any]:
        """Return the spec as it stands in a `spec` op."""
        return asdict(self) | {"optimizer": dict(self.optimizer)}

    @classmethod
    def from_json(cls, body: Mapping[str, Any]) -> TableSpec:
        """Return the spec in a `spec` op; raises ConfigError naming the key that is wrong."""
        values = dict(body)
        try:
            values["init"] = Init(**values.get("init", {}))
            values["policy"] = Policy(**values.get("policy", {}))
            return cls(**values)
        except TypeError as error:
            raise ConfigError(f"table spec: {error}") from None

    def change_refused(self, new: TableSpec) -> str | None:
        """Return what in `new` may not differ from this spec, or None if the change is allowed."""
        for name in ("name", "group", "dim", "shards", "dtype", "init"):
            if getattr(self, name) != getattr(new, name):
                return f"{name} of table {self.name} is fixed for its life"
        if self.frame_bytes not in (None, new.frame_bytes):
            return f"frame_bytes of table {self.name} is fixed for its life"
        if self.optimizer.get("kind") != new.optimizer.get("kind"):
            return f"optimizer kind of table {self.name} is fixed for its life"
        return None


def _whole(name: str, value: object, low: int, high: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
        raise ConfigError(f"{name} = {value!r} is not a whole number from {low} to {high}")


def _number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
