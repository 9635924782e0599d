"""A table of a version into a file: Parquet, npz, safetensors or Lance.

Invariant: the file appears complete or not at all (beside it, `.partial` until then), and holds the
version's rows to the bit; one block of rows is in memory at a time.
"""

from __future__ import annotations

import os
import shutil
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO

import numpy as np
import orjson
from numpy.typing import NDArray

from driftline.errors import InputError
from driftline.exchange.arrow import batches, rows_of, schema
from driftline.exchange.blocks import needed
from driftline.versions.parts import Rows
from driftline.versions.reader import TableReader

Told = Callable[[int], None]
"""Hears how many rows are written so far."""


def export_version(reader: TableReader, path: Path, format: str, told: Told = lambda rows: None) -> int:
    """Write a table of a version to `path`, which must not exist yet; return how many rows it has.

    Raises InputError if `path` exists, ConfigError where the format's package is missing, and what reading
    the version raises.
    """
    if path.exists():
        raise InputError(f"{path} exists: remove it, or name another file")
    partial = path.with_name(path.name + ".partial")
    _remove(partial)
    try:
        count = _WRITERS[format](reader, partial, told)
        os.replace(partial, path)
    finally:
        _remove(partial)
    return count


def _parquet(reader: TableReader, path: Path, told: Told) -> int:
    parquet, done = needed("pyarrow.parquet"), 0
    columns = schema(reader)
    # fresh float32 hardly compress, and a dictionary of them is larger than they are
    vectors = dict.fromkeys(columns.names, "none") | {"id": "zstd", "lsn": "zstd"}
    with parquet.ParquetWriter(path, columns, use_dictionary=False, compression=vectors) as writer:
        for batch in batches(reader):
            writer.write_batch(batch)
            done += batch.num_rows
            told(done)
    return done


def _lance(reader: TableReader, path: Path, told: Told) -> int:
    lance, done = needed("lance"), 0
    source = batches(reader)

    def counted() -> Iterator[object]:
        nonlocal done
        for batch in source:
            yield batch
            done += batch.num_rows
            told(done)

    lance.write_dataset(counted(), str(path), schema=source.schema)
    return done


def _npz(reader: TableReader, path: Path, told: Told) -> int:
    count, columns, done = reader.table.rows, _columns(reader), 0
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED, allowZip64=True) as archive:
        for name, (dtype, shape) in columns.items():  # a column after the other, as the format has them
            with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
                head = {"descr": dtype.str, "fortran_order": False, "shape": (count, *shape)}
                np.lib.format.write_array_header_2_0(member, head)
                for block in rows_of(reader):
                    member.write(np.ascontiguousarray(_column(block, name)).tobytes())
                    done += len(block)
                    told(done // len(columns))
    return count


def _safetensors(reader: TableReader, path: Path, told: Told) -> int:
    count, places, at = reader.table.rows, {}, 0
    header: dict[str, object] = {
        "__metadata__": {"version": reader.manifest.version, "table": reader.name, "format": "driftline"}
    }
    kinds = {"f": "F32", "u": "U64"}
    # wide numbers first, so that all lie aligned
    columns = sorted(_columns(reader).items(), key=lambda each: -each[1][0].itemsize)
    for name, (dtype, shape) in columns:
        size = count * dtype.itemsize * int(np.prod(shape, dtype=np.int64))
        header[name] = {"dtype": kinds[dtype.kind], "shape": [count, *shape], "data_offsets": [at, at + size]}
        places[name], at = at, at + size
    text = orjson.dumps(header)
    text += b" " * (-len(text) % 8)
    done = 0
    with path.open("xb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        begin = 8 + len(text)
        for block in rows_of(reader):
            for name, place in places.items():
                places[name] = _write_at(file, begin, place, _column(block, name))
            done += len(block)
            told(done)
        file.truncate(begin + at)
    return done


def _write_at(file: BinaryIO, begin: int, at: int, values: NDArray[np.generic]) -> int:
    file.seek(begin + at)
    return at + file.write(np.ascontiguousarray(values).tobytes())


def _columns(reader: TableReader) -> dict[str, tuple[np.dtype[np.generic], tuple[int, ...]]]:
    """Return dtype and shape of a row of each column."""
    table = reader.table
    wide, narrow = np.dtype("<u8"), np.dtype("<f4")
    state: dict[str, tuple[np.dtype[np.generic], tuple[int, ...]]] = (
        {"state": (narrow, (table.state_size,))} if table.state_size else {}
    )
    return {"id": (wide, ()), "vector": (narrow, (table.dim,)), **state, "lsn": (wide, ())}


def _column(block: Rows, name: str) -> NDArray[np.generic]:
    found: dict[str, NDArray[np.generic]] = {
        "id": block.ids,
        "vector": block.rows,
        "state": block.state,
        "lsn": block.lsn,
    }
    return found[name]


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


_WRITERS: dict[str, Callable[[TableReader, Path, Told], int]] = {
    "parquet": _parquet,
    "npz": _npz,
    "safetensors": _safetensors,
    "lance": _lance,
}
