"""The golden cases: one or more frames of every type."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from driftline.frames.events import Delete, Event, Gradient, Op, Origin, Upsert, read_event, write_event
from driftline.frames.headers import Keyring
from driftline.frames.states import Marker, States, read_update, write_marker, write_states
from driftline.frames.tensors import Array, decode
from driftline.ids import OPS_PRODUCER, lsn, producer_id

PATH = Path(__file__).parent / "frames.json"
LIMIT = 1 << 20
KEY = "000102030405060708090a0b0c0d0e0f"
_TRAINER = Origin(producer_id("trainer-1"), 2, (5 << 16) + 1)


@dataclass(frozen=True, slots=True)
class Case:
    """A frame and what it stands for."""

    name: str
    value: Event | States | Marker
    as_dtype: str = "F32"

    def frame(self) -> bytes:
        if isinstance(self.value, States):
            return write_states(self.value)
        if isinstance(self.value, Marker):
            return write_marker(self.value)
        return write_event(self.value, as_dtype=self.as_dtype)


def _ids(*rows: int) -> np.ndarray[tuple[int], np.dtype[np.uint64]]:
    return np.array(rows, np.uint64)


def _matrix(*rows: tuple[float, ...]) -> np.ndarray[tuple[int, int], np.dtype[np.float32]]:
    return np.array(rows, np.float32)


def _op(kind: str, number: int, body: Mapping[str, object]) -> Op:
    return Op(kind, "items", 1, Origin(OPS_PRODUCER, 0, number), body)


def cases() -> list[Case]:
    """Return every case, in the order of the file."""
    ids, two = _ids(7, 2**64 - 1), _matrix((1.5, -0.0), (2.0**-149, 3.0))
    gradient = Gradient("items", 1, _TRAINER, ids, two, lsn(1, 42), np.float32(0.1))
    spec = {"name": "items", "dim": 2, "shards": 2, "optimizer": {"kind": "sgd", "lr": 0.5}}
    rows = Op("restore-rows", "items", 1, Origin(OPS_PRODUCER, 0, 9), {}, ids, two, _matrix((1,), (2,)))
    states = States(
        "items", 1, ids, np.array([3, 4], np.uint32), _ids(lsn(1, 42), lsn(1, 43)), two,
        _matrix((0.25,), (0.0,)), np.array([2, 1], np.uint8),
    )  # fmt: skip
    position = {"next": 44, "gen": 1, "op": 8, "epoch": 0}
    producers: Mapping[str, Array] = {
        "pname": np.frombuffer(_TRAINER.producer, np.uint8).reshape(1, 16),
        "pseq": _ids(_TRAINER.seq),
        "qname": np.frombuffer(_TRAINER.producer, np.uint8).reshape(1, 16),
        "qop": _ids(3),
    }
    whole = Marker("barrier", "items", 1, 8, {"kind": "version"}, position, producers)
    return [
        Case("gradient", gradient),
        Case("gradient without read_pos and lr", Gradient("items", 1, _TRAINER, ids, two)),
        Case("gradient in float16", gradient, "F16"),
        Case("gradient in bfloat16", gradient, "BF16"),
        Case("gradient without ids", Gradient("items", 1, _TRAINER, ids[:0], two[:0])),
        Case("upsert", Upsert("items", 1, _TRAINER, ids, two)),
        Case("upsert with state", Upsert("items", 1, _TRAINER, ids, two, _matrix((1,), (2,)))),
        Case("delete", Delete("items", 1, _TRAINER, ids)),
        Case("spec", _op("spec", 1, spec)),
        Case("barrier", _op("barrier", 8, {"kind": "version", "metadata": {"loss": 0.5}})),
        Case("quarantine", _op("quarantine", 3, {"producer": _TRAINER.producer.hex()})),
        Case("prepare", _op("prepare", 4, {"version": "v1"})),
        Case("restore", _op("restore", 5, {"version": "v1", "from_epoch": 0})),
        Case("move", _op("move", 6, {"shard": 1, "to": "redis-2"})),
        Case("restore-rows", rows),
        Case("restore-rows for a shard without ids", _op_without_rows()),
        Case("state", states),
        Case("marker of a barrier", whole),
        Case("marker of a barrier, second part of two", replace(whole, part=1, parts=2)),
    ]


def _op_without_rows() -> Op:
    none, state = _matrix().reshape(0, 2), _matrix().reshape(0, 1)
    return Op("restore-rows", "items", 1, Origin(OPS_PRODUCER, 0, 9), {}, _ids(), none, state)


def read(frame: bytes) -> Event | States | Marker:
    """Return what a golden frame says, whichever topic it belongs to."""
    kind = decode(frame, limit=LIMIT).metadata
    on_updates = kind["type"] == "state" or "position" in kind
    return read_update(frame, limit=LIMIT) if on_updates else read_event(frame, limit=LIMIT)


def described(frame: bytes) -> dict[str, object]:
    """Return what a frame holds in words that JSON knows: floats as the hex of their bits."""
    decoded = decode(frame, limit=LIMIT)
    tensors = {
        name: {
            "dtype": decoded.kinds[name],
            "shape": list(tensor.shape),
            # floats (bfloat16 widened) by their bits, most significant digit first; u64 as strings: JSON
            # readers round them
            "values": [f"{bits:08x}" for bits in tensor.astype("<f4").view("<u4").ravel().tolist()]
            if tensor.dtype.kind == "f"
            else [str(value) for value in tensor.ravel().tolist()],
        }
        for name, tensor in decoded.tensors.items()
    }
    return {"metadata": dict(decoded.metadata), "tensors": tensors}


def render() -> str:
    """Return the text of frames.json."""
    keyring = Keyring.parse(KEY)
    frames = [{"name": case.name, "hex": case.frame().hex()} | described(case.frame()) for case in cases()]
    barrier = next(case for case in cases() if case.name == "barrier").frame()
    signature = {name: value.decode() for name, value in keyring.sign(barrier)}
    content = {
        "about": "Frames of driftline, schema 1. Floats are the hex of their float32 bits.",
        "signature": {"key": KEY, "frame": "barrier", "headers": signature},
        "frames": frames,
    }
    return json.dumps(content, indent=1) + "\n"
