"""What every optimizer is: a pure function over rows, with its constants.

Invariant: `step` treats each row by itself, so that a batch gives the bits that
row-by-row application gives.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from driftline.errors import ConfigError

Rows = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Optimizer(ABC):
    """Base of the optimizers; fields are its constants, rounded to float32 once."""

    kind: ClassVar[str]
    lr: np.float32

    @abstractmethod
    def state_size(self, dim: int) -> int:
        """Return the number of float32 of state per row."""

    def initial_state(self, dim: int) -> Rows:
        """Return the state (s,) of a row at its birth."""
        return np.zeros(self.state_size(dim), np.float32)

    @abstractmethod
    def step(self, rows: Rows, state: Rows, grads: Rows, lr: Rows) -> tuple[Rows, Rows]:
        """Return new rows (n, d) and state (n, s) after one gradient per row; `lr` is (n,)."""

    def run(self, rows: Rows, state: Rows, grads: Rows, lr: Rows, ends: Sequence[int]) -> bool:
        """Apply waves in place; wave k is grads[ends[k-1]:ends[k]], for as many rows from the first on.

        The bits are those of `step`, wave by wave. Returns False as soon as a result is not finite:
        rows and state are of no use then. May change `grads`.
        """
        begin = 0
        for end in ends:
            part = slice(0, end - begin)
            new_rows, new_state = self.step(rows[part], state[part], grads[begin:end], lr[begin:end])
            if not (np.isfinite(new_rows).all() and np.isfinite(new_state).all()):
                return False
            rows[part], state[part] = new_rows, new_state
            begin = end
        return True

    @classmethod
    def of(cls, settings: Mapping[str, object]) -> Self:
        """Return the optimizer with `settings`; raises ConfigError naming an unknown or bad one."""
        known = {item.name for item in fields(cls)}
        for name, value in settings.items():
            if name not in known:
                raise ConfigError(f"optimizer {cls.kind}: unknown setting {name!r}; known: {sorted(known)}")
            if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < 1e30:
                raise ConfigError(f"optimizer {cls.kind}: {name} = {value!r} is not a number of at least 0")
        return cls(**{name: np.float32(value) for name, value in settings.items()})  # type: ignore[arg-type]


def make_optimizer(kinds: Mapping[str, type[Optimizer]], settings: Mapping[str, object]) -> Optimizer:
    """Return the optimizer named by `settings["kind"]`; raises ConfigError."""
    if not isinstance(settings, Mapping):  # JSON from a log may be anything
        raise ConfigError(f"optimizer {settings!r} is not an object with a kind and its settings")
    rest = dict(settings)
    kind = rest.pop("kind", None)
    if not isinstance(kind, str) or kind not in kinds:
        raise ConfigError(f"optimizer kind {kind!r}; known: {', '.join(sorted(kinds))}")
    return kinds[kind].of(rest)
