"""A file into a live table: upserts through the log, as a trainer would push them.

Invariant: rows are queued block by block, never faster than the log takes them. An import that was
broken off and is run again ends with the same table: an upsert sets a row, whatever was there.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from driftline.client.sync_table import Table
from driftline.errors import InputError
from driftline.exchange.blocks import Block, TableFile

IMPORT_ROWS = 16_384


def import_table(
    table: Table,
    file: TableFile,
    *,
    with_state: bool = True,
    told: Callable[[int], None] = lambda rows: None,
) -> int:
    """Upsert all rows of `file` into `table`; return how many, once the log has acknowledged them.

    `with_state`: take the optimizer state along where the file has one; otherwise it starts anew. Raises
    InputError naming file, column and row; rows before it are in the table then.
    """
    spec = table.spec
    if file.dim != spec.dim:
        raise InputError(
            f"{file.path}: column vector has {file.dim} numbers a row, table {spec.name} {spec.dim}"
        )
    taken = with_state and file.state_size > 0
    if taken and file.state_size != spec.state_size:
        raise InputError(
            f"{file.path}: column state has {file.state_size} numbers a row, table {spec.name} has "
            f"{spec.state_size}: import without it (--without-state)"
        )
    done = 0
    for block in file.blocks(IMPORT_ROWS):
        _no_twins(file, block)
        table.upsert(block.ids, block.vectors, state=block.state if taken else None)
        done += len(block)
        told(done)
    table.flush()
    return done


def _no_twins(file: TableFile, block: Block) -> None:
    ids, first, counts = np.unique(block.ids, return_index=True, return_counts=True)
    if (counts > 1).any():
        place = int(np.argmax(counts > 1))
        second = int(np.flatnonzero(block.ids == ids[place])[1])
        raise InputError(
            f"{file.path}: column id, row {block.first + second}: {ids[place]} is in row "
            f"{block.first + int(first[place])} already"
        )
