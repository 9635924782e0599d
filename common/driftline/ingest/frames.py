"""The frames that a message becomes: at most one per shard.

Invariant: the frames carry what the client's `push` and `upsert` of the same arrays
would: duplicates of a gradient summed in order of occurrence in float32, ids rising.
A message is taken whole or refused whole.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from driftline.client.splitting import sum_duplicates
from driftline.errors import FrameError
from driftline.frames.events import GRADIENT, Gradient, Origin, Upsert
from driftline.frames.reasons import Reason
from driftline.ids import shard_of
from driftline.ingest.message import Message
from driftline.shard.spec import TableSpec


def frames_of(message: Message, spec: TableSpec, origin: Origin) -> list[Gradient | Upsert]:
    """Return the frames of `message`, in order of their shards; all have the same origin.

    Raises FrameError: `wrong_dim`, `non_finite` (a sum of duplicates), `duplicate_ids` (in an
    upsert), `bad_message` (a read position of a shard that the table does not have).
    """
    if message.rows.shape[1] != spec.dim:
        raise FrameError(
            Reason.WRONG_DIM, f"rows have {message.rows.shape[1]} numbers, table {spec.name} has {spec.dim}"
        )
    foreign = [shard for shard in message.read if shard >= spec.shards]
    if foreign:
        raise FrameError(
            Reason.BAD_MESSAGE, f"'read_pos' names shard {foreign[0]}, the table has {spec.shards}"
        )
    if message.kind == GRADIENT:
        ids, grads = _summed(message)
        return [
            Gradient(spec.name, shard, origin, ids[at], grads[at], message.read.get(shard), message.lr)
            for shard, at in _by_shard(ids, spec.shards)
        ]
    ids, rows = _ordered(message)
    return [Upsert(spec.name, shard, origin, ids[at], rows[at]) for shard, at in _by_shard(ids, spec.shards)]


def _summed(message: Message) -> tuple[NDArray[np.uint64], NDArray[np.float32]]:
    with np.errstate(over="ignore", invalid="ignore"):
        ids, sums = sum_duplicates(message.ids, message.rows)
    finite = np.isfinite(sums).all(axis=1)
    if not finite.all():
        raise FrameError(
            Reason.NON_FINITE, f"the sum of the gradients of id {ids[~finite][0]} is not finite in float32"
        )
    return ids, sums


def _ordered(message: Message) -> tuple[NDArray[np.uint64], NDArray[np.float32]]:
    order = np.argsort(message.ids, kind="stable")
    ids = message.ids[order]
    repeated = ids[1:][ids[1:] == ids[:-1]]
    if len(repeated):
        raise FrameError(Reason.DUPLICATE_IDS, f"upsert: id {repeated[0]} is given more than once")
    return ids, message.rows[order]


def _by_shard(ids: NDArray[np.uint64], shards: int) -> Iterator[tuple[int, NDArray[np.intp]]]:
    """Yield each shard concerned and the places of its ids, which keep their order."""
    home = shard_of(ids, shards)
    order = np.argsort(home, kind="stable")
    present, starts = np.unique(home[order], return_index=True)
    yield from zip(present.tolist(), np.split(order, starts[1:]), strict=True)
