"""Files of tables, read block by block: Parquet, npz, safetensors, Lance.

Invariant: no more than a block of rows is in memory, and a file that does not hold ids and vectors is
refused with its path, the column and the row.
"""

from __future__ import annotations

import mmap
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from driftline.errors import FrameError, InputError
from driftline.exchange.blocks import Block, TableFile, as_ids, as_vectors, format_of, needed
from driftline.frames.tensors import decode

_LIMIT = 1 << 50


def open_table(path: Path, format: str | None = None) -> TableFile:
    """Open a file. Raises InputError naming what is wrong with it, ConfigError for a missing package."""
    name = format_of(path, format)
    if not path.exists():
        raise InputError(f"{path} does not exist")
    return _OPENERS[name](path)


def _from_arrays(
    path: Path, format: str, arrays: dict[str, NDArray[Any]], maps: list[mmap.mmap]
) -> TableFile:
    """Return a file whose columns lie in `maps`; what was read is given back after each block."""
    for column in ("id", "vector"):
        if column not in arrays:
            raise InputError(f"{path} has no column {column}; it has {', '.join(sorted(arrays)) or 'none'}")
    ids, vectors, state = arrays["id"], arrays["vector"], arrays.get("state")
    rows = len(ids) if ids.ndim else 0
    for column, values in (("vector", vectors), ("state", state)):
        if values is not None and (values.ndim != 2 or len(values) != rows):
            raise InputError(f"{path}: column {column} has shape {values.shape}, for {rows} ids")

    def blocks(at_once: int) -> Iterator[Block]:
        for start in range(0, rows, at_once):
            some = slice(start, start + at_once)
            here = as_ids(path, start, ids[some])
            none = np.zeros((len(here), 0), np.float32)
            extra = as_vectors(path, "state", start, state[some]) if state is not None else none
            block = Block(
                start, here.copy(), as_vectors(path, "vector", start, vectors[some]).copy(), extra.copy()
            )
            for each in maps:
                each.madvise(mmap.MADV_DONTNEED)
            yield block

    as_ids(path, 0, ids[:0])
    return TableFile(path, format, rows, vectors.shape[1], state.shape[1] if state is not None else 0, blocks)


def _npz(path: Path) -> TableFile:
    try:
        with zipfile.ZipFile(path) as archive, path.open("rb") as file:
            mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
            arrays = {
                info.filename.removesuffix(".npy"): _member(path, mapped, archive, info)
                for info in archive.infolist()
            }
    except zipfile.BadZipFile as error:
        raise InputError(f"{path} is not an npz file: {error}") from None
    return _from_arrays(path, "npz", arrays, [mapped])


def _member(path: Path, mapped: mmap.mmap, archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> NDArray[Any]:
    """Return a column of an npz file, mapped."""
    name = info.filename.removesuffix(".npy")
    if info.compress_type != zipfile.ZIP_STORED:
        raise InputError(f"{path}: column {name} is compressed and cannot be read in pieces: use np.savez")
    with archive.open(info) as member:
        try:
            version = np.lib.format.read_magic(member)
            read = (
                np.lib.format.read_array_header_1_0
                if version == (1, 0)
                else np.lib.format.read_array_header_2_0
            )
            shape, fortran, dtype = read(member)
        except ValueError as error:
            raise InputError(f"{path}: column {name}: {error}") from None
        inside = member.tell()
    at = info.header_offset + 26
    names, extras = (int.from_bytes(mapped[each : each + 2], "little") for each in (at, at + 2))
    if fortran or dtype.hasobject:
        raise InputError(
            f"{path}: column {name} is {dtype}, or stored by columns: numbers in C order are needed"
        )
    if not np.prod(shape):
        return np.zeros(shape, dtype)
    begin = info.header_offset + 30 + names + extras + inside
    return np.frombuffer(mapped, dtype, int(np.prod(shape)), begin).reshape(shape)


def _safetensors(path: Path) -> TableFile:
    with path.open("rb") as file:
        try:
            mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
            frame = decode(mapped, limit=_LIMIT)
        except (FrameError, ValueError) as error:
            raise InputError(f"{path}: {error}") from None
    return _from_arrays(path, "safetensors", dict(frame.tensors), [mapped])


def _parquet(path: Path) -> TableFile:
    arrow, dataset = needed("pyarrow"), needed("pyarrow.dataset")
    try:
        source = dataset.dataset(path, format="parquet")
        rows = source.count_rows()
    except (arrow.ArrowInvalid, OSError) as error:
        raise InputError(f"{path}: {str(error).splitlines()[0]}") from None
    return _from_arrow(
        path, "parquet", source.schema, rows, lambda n, names: source.to_batches(columns=names, batch_size=n)
    )


def _lance(path: Path) -> TableFile:
    lance = needed("lance")
    try:
        source = lance.dataset(str(path))
    except (ValueError, OSError) as error:
        raise InputError(f"{path}: {str(error).splitlines()[0]}") from None
    return _from_arrow(
        path,
        "lance",
        source.schema,
        source.count_rows(),
        lambda n, names: source.to_batches(columns=names, batch_size=n),
    )


def _from_arrow(
    path: Path, format: str, schema: Any, rows: int, scan: Callable[[int, list[str]], Iterator[Any]]
) -> TableFile:
    names = [name for name in ("id", "vector", "state") if name in schema.names]
    for column in ("id", "vector"):
        if column not in names:
            raise InputError(f"{path} has no column {column}; it has {', '.join(schema.names) or 'none'}")
    widths = {name: getattr(schema.field(name).type, "list_size", 0) for name in names[1:]}
    for name in names[1:]:
        if not str(schema.field(name).type).startswith(("list", "large_list", "fixed_size_list")):
            raise InputError(
                f"{path}: column {name} is {schema.field(name).type}: lists of numbers are needed"
            )
        if widths[name] <= 0 and rows:  # lists of any length: the first row tells
            first = next(iter(scan(1, [name])))
            widths[name] = len(first.column(0)[0] or ())

    def blocks(at_once: int) -> Iterator[Block]:
        at = 0
        for batch in scan(at_once, names):
            for start in range(0, batch.num_rows, at_once):
                some = batch.slice(start, at_once)
                columns = {name: some.column(place) for place, name in enumerate(names)}
                ids = as_ids(path, at, _numbers(path, "id", at, columns["id"]))
                state = np.zeros((len(ids), 0), np.float32)
                if "state" in columns:
                    state = _lists(path, "state", at, columns["state"], widths["state"])
                yield Block(at, ids, _lists(path, "vector", at, columns["vector"], widths["vector"]), state)
                at += len(ids)

    return TableFile(path, format, rows, widths["vector"], widths.get("state", 0), blocks)


def _numbers(path: Path, column: str, first: int, values: Any) -> NDArray[Any]:
    _no_nulls(path, column, first, values)
    found: NDArray[Any] = values.to_numpy(zero_copy_only=False)
    return found


def _lists(path: Path, column: str, first: int, values: Any, width: int) -> NDArray[np.float32]:
    _no_nulls(path, column, first, values)
    lengths = np.full(len(values), width)
    if not hasattr(values.type, "list_size"):
        lengths = np.diff(values.offsets.to_numpy())
    if (lengths != width).any():
        row = int(np.argmax(lengths != width))
        raise InputError(
            f"{path}: column {column}, row {first + row}: {lengths[row]} numbers, the first row has {width}"
        )
    flat = values.flatten()
    if flat.null_count:
        row = int(np.argmax(flat.is_null().to_numpy(zero_copy_only=False))) // max(width, 1)
        raise InputError(f"{path}: column {column}, row {first + row}: a number is null")
    return as_vectors(path, column, first, flat.to_numpy(zero_copy_only=False).reshape(len(values), width))


def _no_nulls(path: Path, column: str, first: int, values: Any) -> None:
    if values.null_count:
        row = int(np.argmax(values.is_null().to_numpy(zero_copy_only=False)))
        raise InputError(f"{path}: column {column}, row {first + row}: null")


_OPENERS: dict[str, Callable[[Path], TableFile]] = {
    "parquet": _parquet,
    "npz": _npz,
    "safetensors": _safetensors,
    "lance": _lance,
}
