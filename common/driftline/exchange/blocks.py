"""What all formats have in common: the columns of a table, and rows of them at a time.

Invariant: a column has one name in every format: `id` (u64), `vector` (float32, all of one width),
`state` (float32; absent where a table has none) and `lsn` (u64, written and not read). What does not fit is
refused by file, column and row; rows count from 0.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from driftline.errors import ConfigError, InputError

FORMATS = ("parquet", "npz", "safetensors", "lance")
BLOCK_ROWS = 65_536
_EXTRAS = {"pyarrow": "parquet", "lance": "lance"}


@dataclass(frozen=True, slots=True)
class Block:
    """Some rows of a file."""

    first: int  # row of the file that the block begins with
    ids: NDArray[np.uint64]  # (n,)
    vectors: NDArray[np.float32]  # (n, dim)
    state: NDArray[np.float32]  # (n, state size)

    def __len__(self) -> int:
        return len(self.ids)


@dataclass(frozen=True, slots=True)
class TableFile:
    """A file, opened: its shape, and its rows block by block."""

    path: Path
    format: str
    rows: int
    dim: int
    state_size: int  # 0: no column `state`
    blocks: Callable[[int], Iterator[Block]]  # rows at a time -> blocks


def format_of(path: Path, given: str | None = None) -> str:
    """Return the format of a path: the one given, or by its suffix. Raises InputError."""
    name = given if given is not None else path.suffix.removeprefix(".")
    if name not in FORMATS:
        what = f"format {name!r}" if given is not None else f"{path}: suffix {path.suffix!r}"
        raise InputError(f"{what} is not one of {', '.join(FORMATS)}; --format says which it is")
    return name


def needed(module: str) -> ModuleType:
    """Return an optional module. Raises ConfigError naming the extra that brings it."""
    try:
        return importlib.import_module(module)
    except ImportError:
        extra = _EXTRAS[module.partition(".")[0]]
        raise ConfigError(f"{module} is not installed: pip install 'driftline[{extra}]'") from None


def as_ids(path: Path, first: int, values: NDArray[Any]) -> NDArray[np.uint64]:
    """Return a column of ids. Raises InputError naming the first row that holds none."""
    if values.ndim != 1 or values.dtype.kind not in "iu":
        raise InputError(
            f"{path}: column id is {values.dtype} {values.shape[1:] or ''}: one whole number a row is needed"
        )
    if values.dtype.kind == "i" and len(values) and int(values.min()) < 0:
        row = int(np.argmax(values < 0))
        raise InputError(f"{path}: column id, row {first + row}: {values[row]} is below 0")
    return values.astype(np.uint64, copy=False)


def as_vectors(path: Path, column: str, first: int, values: NDArray[Any]) -> NDArray[np.float32]:
    """Return a column of vectors. Raises InputError naming the first row with a number that is not finite."""
    if values.ndim != 2 or values.dtype.kind not in "fiu":
        raise InputError(
            f"{path}: column {column} is {values.dtype} of shape {values.shape}: rows of numbers"
        )
    with np.errstate(over="ignore"):  # a float64 beyond float32 is named below
        found = np.ascontiguousarray(values, dtype=np.float32)
    finite = np.isfinite(found)
    if not finite.all():
        row, place = (int(each) for each in np.argwhere(~finite)[0])
        raise InputError(
            f"{path}: column {column}, row {first + row}: number {place} is {values[row, place]}, not a "
            "finite float32"
        )
    return found
