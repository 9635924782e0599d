"""Where a shard lives in Redis, and the bytes of a row's value.

    dl:{T:p}:v   hash  id (8 bytes LE) -> row (d float32 LE) | lsn u64 | ordinal u32 | state if <= 16 bytes
    dl:{T:p}:s   hash  id -> optimizer state, where it is larger
    dl:{T:p}:w   hash  the position
    dl:T         hash  table spec: a hint that can be rebuilt

Invariant: the row comes first in the value, so any client can read it by its
first bytes. The hash tag keeps a shard's keys in one slot of a Redis Cluster.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import numpy as np
from numpy.typing import NDArray

from driftline.errors import PositionError
from driftline.shard.cache import RowBlock
from driftline.shard.spec import TableSpec

INLINE_STATE = 16  # bytes of state that travel in the row's value
_LSN, _ORDINAL = 8, 4


@dataclass(frozen=True, slots=True)
class ShardKeys:
    """The Redis keys of one shard."""

    values: bytes
    state: bytes
    position: bytes

    @classmethod
    def of(cls, table: str, shard: int) -> ShardKeys:
        """Return the keys of shard `shard` of `table`."""
        stem = f"dl:{{{table}:{shard}}}:".encode()
        return cls(stem + b"v", stem + b"s", stem + b"w")

    def lost(self, layout: RowLayout, rows: int, values: object, states: object) -> str | None:
        """Return what is wrong when the hashes have not as many fields as the position says, else None.

        `values`, `states`: replies to HLEN. Where nothing is stored yet, nothing may be left behind.
        """
        counted = [(self.values, values)]
        if layout.separate_state or not rows:
            counted.append((self.state, states))
        for key, count in counted:
            if count != rows:
                return f"{key.decode()} holds {count!r} rows, the position says {rows}"
        return None


def table_key(table: str) -> bytes:
    """Return the key of the table's hint hash."""
    return f"dl:{table}".encode()


@dataclass(frozen=True, slots=True)
class RowLayout:
    """Byte layout of a value for rows of `dim` float32 with `state_size` float32 of state."""

    dim: int
    state_size: int

    @classmethod
    def of(cls, spec: TableSpec | None) -> RowLayout:
        """Return the layout of a table's values; before its spec there are none."""
        return cls(spec.dim, spec.state_size) if spec is not None else cls(1, 0)

    @property
    def row_bytes(self) -> int:
        """Bytes of the row at the start of a value."""
        return 4 * self.dim

    @property
    def inline(self) -> bool:
        """Whether the state travels in the value."""
        return 4 * self.state_size <= INLINE_STATE

    @property
    def value_bytes(self) -> int:
        """Bytes of a whole value."""
        return self.row_bytes + _LSN + _ORDINAL + (4 * self.state_size if self.inline else 0)

    @property
    def separate_state(self) -> bool:
        """Whether there is a second hash."""
        return not self.inline

    @property
    def fields(self) -> np.dtype[np.void]:
        """What of a value readers look at: `row` and `lsn`, at their places."""
        return _fields(self.row_bytes, self.value_bytes)

    def pack(
        self,
        rows: NDArray[np.float32],
        lsn: NDArray[np.uint64],
        ordinals: NDArray[np.uint32],
        state: NDArray[np.float32],
    ) -> NDArray[np.uint8]:
        """Return the values (n, value_bytes)."""
        n, at = len(rows), self.row_bytes
        values = np.empty((n, self.value_bytes), np.uint8)
        values[:, :at] = as_bytes(rows)
        values[:, at : at + _LSN] = as_bytes(lsn.reshape(n, 1))
        values[:, at + _LSN : at + _LSN + _ORDINAL] = as_bytes(ordinals.reshape(n, 1))
        if self.inline and self.state_size:
            values[:, at + _LSN + _ORDINAL :] = as_bytes(state)
        return values

    def unpack(
        self, ids: NDArray[np.uint64], values: Sequence[bytes | None], states: Sequence[bytes | None] | None
    ) -> RowBlock:
        """Return the rows in HMGET replies; None is a row that does not exist.

        Raises PositionError when the values together have another length than the table's spec
        gives them, or when a row lacks its state.
        """
        present, packed = _matrix(values, self.value_bytes)
        at = self.row_bytes
        lsn = np.ascontiguousarray(packed[:, at : at + _LSN]).view("<u8")[:, 0]
        ordinals = np.ascontiguousarray(packed[:, at + _LSN : at + _LSN + _ORDINAL]).view("<u4")[:, 0]
        rows = np.ascontiguousarray(packed[:, :at]).view("<f4")
        if self.state_size == 0:
            state = np.zeros((len(ids), 0), np.float32)
        elif states is None:
            state = np.ascontiguousarray(packed[:, at + _LSN + _ORDINAL :]).view("<f4")
        else:
            stated, joined = _matrix(states, 4 * self.state_size)
            if (present & ~stated).any():
                raise PositionError(f"row {ids[present & ~stated][0]} is stored without its optimizer state")
            state = joined.view("<f4")
        return RowBlock(ids, present, rows, state, lsn, ordinals)


@functools.cache
def _fields(row_bytes: int, value_bytes: int) -> np.dtype[np.void]:
    formats = [("<f4", (row_bytes // 4,)), "<u8"]
    return np.dtype(
        {"names": ["row", "lsn"], "formats": formats, "offsets": [0, row_bytes], "itemsize": value_bytes}
    )


def join(values: Sequence[bytes | None], length: int) -> tuple[NDArray[np.bool_] | None, bytes]:
    """Return which values exist (None: all of them), and all as bytes, `length` each, zero where missing."""
    present = None
    try:
        joined = b"".join(cast(Sequence[bytes], values))
    except TypeError:  # a None among them, which is the rarer case
        zero = bytes(length)
        joined = b"".join([zero if value is None else value for value in values])
        present = np.array([value is not None for value in values], bool)
    if len(joined) != length * len(values):
        raise PositionError(f"stored values have {len(joined)} bytes for {len(values)} rows of {length}")
    return present, joined


def _matrix(values: Sequence[bytes | None], length: int) -> tuple[NDArray[np.bool_], NDArray[np.uint8]]:
    """Return which values exist, and all of them as (n, length) bytes, zero where missing."""
    present, joined = join(values, length)
    if present is None:
        present = np.ones(len(values), bool)
    return present, np.frombuffer(joined, np.uint8).reshape(-1, length)


def as_bytes(matrix: NDArray[np.generic]) -> NDArray[np.uint8]:
    """Return a (n, k) matrix of little-endian numbers as (n, bytes)."""
    return np.ascontiguousarray(matrix).view(np.uint8)
