"""A version as Arrow: batches as they are read, or a PyArrow dataset to scan again and again.

Invariant: batches are made one at a time. A version never changes, so the Parquet copy that a dataset
scans is made once, complete or not at all, and holds for ever.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from driftline.exchange.blocks import BLOCK_ROWS, needed
from driftline.versions.parts import Rows
from driftline.versions.reader import TableReader

if TYPE_CHECKING:
    from numpy.typing import NDArray


def schema(reader: TableReader) -> Any:
    """Return the Arrow schema of a table: id, vector, state where there is one, lsn."""
    arrow = needed("pyarrow")
    number = arrow.field("item", arrow.float32(), nullable=False)
    fields = [
        arrow.field("id", arrow.uint64(), nullable=False),
        arrow.field("vector", arrow.list_(number, reader.table.dim), nullable=False),
    ]
    if reader.table.state_size:
        fields.append(arrow.field("state", arrow.list_(number, reader.table.state_size), nullable=False))
    fields.append(arrow.field("lsn", arrow.uint64(), nullable=False))
    about = {"driftline.version": reader.manifest.version, "driftline.table": reader.name}
    return arrow.schema(fields, metadata=about)


def rows_of(reader: TableReader, rows: int = BLOCK_ROWS) -> Iterator[Rows]:
    """Yield all rows of a table, shard by shard."""
    for shard in range(reader.shards):
        yield from reader.blocks(shard, rows)


def batches(reader: TableReader, rows: int = BLOCK_ROWS) -> Any:
    """Return a `pyarrow.RecordBatchReader` over a table; each batch is read when it is asked for."""
    arrow = needed("pyarrow")
    columns = schema(reader)
    return arrow.RecordBatchReader.from_batches(
        columns, (_batch(arrow, columns, block) for block in rows_of(reader, rows))
    )


def dataset(reader: TableReader, directory: Path) -> Any:
    """Return a `pyarrow.dataset.Dataset` of a table, over a Parquet copy in `directory`, made if missing."""
    from driftline.exchange.writing import export_version

    scanned = needed("pyarrow.dataset")
    path = directory / reader.manifest.version / f"{reader.name}.parquet"
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        export_version(reader, path, "parquet")
    return scanned.dataset(path, format="parquet")


def _batch(arrow: Any, columns: Any, block: Rows) -> Any:
    arrays = [arrow.array(block.ids), _lists(arrow, columns, "vector", block.rows)]
    if block.state.shape[1]:
        arrays.append(_lists(arrow, columns, "state", block.state))
    return arrow.record_batch([*arrays, arrow.array(block.lsn)], schema=columns)


def _lists(arrow: Any, columns: Any, name: str, values: NDArray[np.float32]) -> Any:
    flat = arrow.array(np.ascontiguousarray(values).reshape(-1))
    return arrow.FixedSizeListArray.from_arrays(flat, type=columns.field(name).type)
