"""Well-formed frames of every type, to be damaged.

Invariant: every frame here is accepted as it is, by driftline and by the oracle alike.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from driftline.frames.events import Delete, Gradient, Op, Origin, Upsert, write_event
from driftline.frames.states import Marker, States, write_marker, write_states
from driftline.ids import OPS_PRODUCER
from driftline.shard.position import Position
from tests.oracle import wire, writing

_P = bytes(range(16))


def events() -> list[bytes]:
    """Return frames of the gradients topic."""
    rng = np.random.default_rng(1)
    frames = []
    for count, dim in ((0, 3), (1, 1), (5, 4), (40, 8)):
        ids = np.arange(count, dtype=np.uint64) * np.uint64(7)
        rows = rng.standard_normal((count, dim)).astype(np.float32)
        origin = Origin(_P, 2, 1 << 40)
        gradient = Gradient("t", 1, origin, ids, rows, 1 << 48 | 5)
        frames += [write_event(gradient, as_dtype=dtype) for dtype in ("F32", "F16", "BF16")]
        frames.append(write_event(Gradient("t", 1, origin, ids, rows, None, np.float32(0.25))))
        frames.append(write_event(Upsert("t", 1, origin, ids, rows)))
        frames.append(write_event(Upsert("t", 1, origin, ids, rows, rows[:, :1].copy())))
        frames.append(write_event(Delete("t", 1, origin, ids)))
        body = {"from_epoch": 9, "producer": _P.hex(), "deep": {"er": [1, 2.5, None]}}
        frames += [
            write_event(Op(kind, "t", 1, Origin(OPS_PRODUCER, 0, 7), body, ids, rows, rows))
            for kind in wire.OPS
        ]
    return frames + _by_another_hand()


def _by_another_hand() -> list[bytes]:
    """Frames by another encoder: other white space and order, escapes, tensors that mean nothing."""
    ids = writing.ids_tensor([1, 2, 3])
    grads = writing.floats_tensor([[1.0, 2.0]] * 3, 2)
    meta = writing.metadata("gradient", "t", 1, _P, 5)
    more = {"other": ("U8", (3,), b"abc"), "grads": grads, "ids": ids, "state": ("U32", (), b"1234")}
    return [
        writing.encode(meta, {"ids": ids, "grads": grads}),
        writing.encode(meta | {"note": 'quoted "\\ \u00e9 \U0001f600 \n'}, {"grads": grads, "ids": ids}),
        writing.encode(meta, more),
    ]


def updates() -> list[bytes]:
    """Return frames of the updates topic."""
    count, dim = 6, 4
    ids = np.arange(count, dtype=np.uint64)
    states = States(
        "t",
        1,
        ids,
        ids.astype(np.uint32),
        ids,
        np.ones((count, dim), np.float32),
        np.ones((count, 1), np.float32),
        np.full(count, 2, np.uint8),
    )
    position = Position(next=5, time=9)
    position.producers.set(_P, 1, 2, 3)
    scalars, tensors = position.snapshot()
    body: Mapping[str, object] = {"kind": "version"}
    kinds: Sequence[str] = ("barrier", "spec", "quarantine")
    return [write_states(states)] + [
        write_marker(Marker(kind, "t", 1, 3, body, scalars, tensors)) for kind in kinds
    ]
