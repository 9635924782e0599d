"""Where an instance was: rows, neighbours, judge and positions, as of one tick.

Invariant: a checkpoint is of one barrier, whole or not there: it is written beside and renamed.
Going on from one, the updates behind its positions are judged again, tick by tick; verdicts that
were told before are known by their ids and not told again.
"""

from __future__ import annotations

import io
import json
import os
import zipfile
from collections import deque
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from driftline.drift import dump_state, load_state
from driftline.errors import InputError
from driftline_services.drift_monitor.gathering import ShardFollow
from driftline_services.drift_monitor.watch import TableWatch

_FORMAT = 1


@dataclass(frozen=True, slots=True)
class Stand:
    """Where a shard was: its next update, its floor and the last op behind it."""

    position: int
    floor: int
    last_op: int


@dataclass(frozen=True, slots=True)
class Saved:
    """A checkpoint that was read, not yet entered."""

    about: dict[str, object]
    arrays: dict[str, NDArray[np.generic]]
    stands: dict[int, Stand]


def path_of(directory: Path, group: str, table: str, shards: tuple[int, ...]) -> Path:
    """Return the file of a scope's checkpoint."""
    return directory / "drift" / group / f"{table}-{_ranges(shards)}.npz"


def write(path: Path, watch: TableWatch, stands: dict[int, Stand]) -> None:
    """Write the checkpoint of a table that has just been judged. Raises OSError."""
    about = {
        "format": _FORMAT,
        "dims": watch.rows.dims,
        "share": watch.share,
        "begun": watch.begun,
        "history": watch.history,
        "number": watch.ticks.number,
        "stands": {str(shard): [each.position, each.floor, each.last_op] for shard, each in stands.items()},
        "ops": list(watch.ticks.ops),
        "per_row": list(watch.ticks.per_row),
    }
    ids = watch.rows.ids
    arrays: dict[str, NDArray[np.generic]] = {
        "about": np.frombuffer(json.dumps(about).encode(), np.uint8),
        "ids": ids,
        "vectors": watch.rows.vectors,
        "updates": watch.rows.updates,
        "judge": np.frombuffer(dump_state(watch.state), np.uint8),
    }
    if watch.begun:
        near = watch.graph.kneighbours()
        arrays["near"] = np.where(near.listed, near.ids, ids[:, None])  # no row is its own neighbour
    out = io.BytesIO()
    np.savez(out, **arrays)  # type: ignore[arg-type]
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_suffix(".new")
    with open(beside, "wb") as file:
        file.write(out.getbuffer())
        file.flush()
        os.fsync(file.fileno())
    beside.replace(path)


def read(path: Path, shards: tuple[int, ...], dims: int) -> Saved | None:
    """Return the checkpoint of these shards, None without one. Raises InputError for a damaged one."""
    try:
        with np.load(path, allow_pickle=False) as archive:
            arrays = {name: archive[name] for name in archive.files}
        about = json.loads(arrays["about"].tobytes())
        stands = {int(shard): Stand(*each) for shard, each in about["stands"].items()}
        if about["format"] != _FORMAT or tuple(sorted(stands)) != shards or about["dims"] != dims:
            return None
    except FileNotFoundError:
        return None
    except (KeyError, ValueError, TypeError, OSError, EOFError, zipfile.BadZipFile) as error:
        raise InputError(f"checkpoint {path} is damaged, {error!r}: remove it to calibrate anew") from error
    return Saved(about, arrays, stands)


def enter(saved: Saved, watch: TableWatch, follows: dict[int, ShardFollow]) -> None:
    """Have a table and its shards go on from a checkpoint. Raises InputError."""
    about, arrays = saved.about, saved.arrays
    state = load_state(arrays["judge"].tobytes())
    watch.state, watch.history = state, int(str(about["history"]))
    watch.share, watch.begun = int(str(about["share"])), bool(about["begun"])
    watch.ticks.number = int(str(about["number"]))
    ops, per_row = about["ops"], about["per_row"]
    assert isinstance(ops, list), "as it was written"
    assert isinstance(per_row, list), "as it was written"
    watch.ticks.ops = deque(((int(n), int(op)) for n, op in ops), maxlen=watch.ticks.ops.maxlen)
    watch.ticks.per_row = deque(map(float, per_row), maxlen=watch.ticks.per_row.maxlen)
    ids, vectors = arrays["ids"].astype(np.uint64), arrays["vectors"].astype(np.float32)
    watch.rows.restore(ids, vectors, arrays["updates"].astype(np.int32))
    if watch.begun:
        watch.adopt(arrays["near"].astype(np.uint64))
    for shard, each in saved.stands.items():
        follow = follows[shard]
        follow.position, follow.floor, follow.last_op = each.position, each.floor, each.last_op


def _ranges(shards: tuple[int, ...]) -> str:
    """Return shards as text that is short for neighbours.

    Examples
    --------
    >>> _ranges((0, 1, 2, 5))
    '0-2_5'
    """
    runs: list[list[int]] = []
    for shard in shards:
        if runs and shard == runs[-1][1] + 1:
            runs[-1][1] = shard
        else:
            runs.append([shard, shard])
    return "_".join(str(a) if a == b else f"{a}-{b}" for a, b in runs)
