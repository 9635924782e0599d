"""What one commit writes: rows, optimizer state and the position they stand for.

Invariant: pure; the position is in the same commands as the rows it stands for.
"""

from __future__ import annotations

import numpy as np

from driftline.frames.states import TOMBSTONE
from driftline.rows import resp
from driftline.rows.layout import RowLayout, ShardKeys
from driftline.rows.resp import Bytes
from driftline.rows.staging import BESIDE, VERSION, Swap
from driftline.shard.machine import Delta


def transaction(keys: ShardKeys, layout: RowLayout, delta: Delta, published: int) -> tuple[list[Bytes], int]:
    """Return the commands, without MULTI and EXEC, that make `delta` durable, and how many they are."""
    states = delta.states
    dead = (states.flags & TOMBSTONE) != 0
    live = ~dead
    packed: list[Bytes] = []
    commands = 1
    if live.any():
        ids, state = states.ids[live], states.state[live]
        values = layout.pack(states.rows[live], states.lsn[live], states.ordinals[live], state)
        packed += resp.hset(keys.values, ids, values)
        commands += 1
        if layout.separate_state:
            packed += resp.hset(keys.state, ids, np.ascontiguousarray(state).view(np.uint8))
            commands += 1
    if dead.any():
        for key in (keys.values, keys.state) if layout.separate_state else (keys.values,):
            packed += resp.on_ids(b"HDEL", key, states.ids[dead])
            commands += 1
    fields = delta.fields | {b"published": b"%d" % published}
    packed.append(resp.command(b"HSET", keys.position, *(part for item in fields.items() for part in item)))
    if delta.removed:
        packed.append(resp.command(b"HDEL", keys.position, *delta.removed))
        commands += 1
    return packed, commands


def restoration(keys: ShardKeys, delta: Delta, published: int, swap: Swap) -> list[Bytes]:
    """Return the commands, without MULTI and EXEC, that put a staged copy in the place of all rows.

    What was there is unlinked: Redis frees it beside its work, however large it is.
    """
    staged = swap.staged
    packed: list[Bytes] = [resp.command(b"UNLINK", keys.values, keys.state)]
    for count, copy, key in (
        (staged.rows, staged.copy.values, keys.values),
        (staged.states, staged.copy.state, keys.state),
    ):
        if count:
            packed += [resp.command(b"PERSIST", copy), resp.command(b"RENAME", copy, key)]
    fields = delta.fields | {b"published": b"%d" % published, VERSION: swap.said}
    packed.append(resp.command(b"HSET", keys.position, *(part for item in fields.items() for part in item)))
    packed.append(resp.command(b"HDEL", keys.position, *BESIDE, *delta.removed))
    return packed
