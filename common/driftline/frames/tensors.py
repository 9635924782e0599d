"""The byte layout of every frame: safetensors, read strictly.

Layout: u64 header length (LE) | JSON header | raw little-endian tensors.
Invariant: `decode` accepts exactly the frames in which every byte is accounted
for: the tensors lie back to back, without holes or overlaps, and end where the
frame ends. Whatever it refuses it refuses with a `FrameError`, never otherwise.
Source: the safetensors format (https://github.com/huggingface/safetensors).
"""

from __future__ import annotations

import math
import mmap
import re
import reprlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import orjson
from numpy.typing import NDArray

from driftline.errors import FrameError
from driftline.frames.reasons import Reason

HEADER_LIMIT = 64 * 1024
TENSOR_LIMIT = 16
_SIDE_LIMIT = 1 << 32  # of an empty tensor too: numpy refuses shapes beyond the address space
DTYPES: dict[str, np.dtype[Any]] = {
    "U8": np.dtype("u1"),
    "U32": np.dtype("<u4"),
    "U64": np.dtype("<u8"),
    "F16": np.dtype("<f2"),
    "BF16": np.dtype("<u2"),  # numpy has no bfloat16: the raw upper halves of float32
    "F32": np.dtype("<f4"),
}
_NAMES = {np.dtype("u1"): "U8", np.dtype("<u4"): "U32", np.dtype("<u8"): "U64"}
_NAMES |= {np.dtype("<f2"): "F16", np.dtype("<f4"): "F32"}
_ENTRY = {"dtype", "shape", "data_offsets"}
_shown = reprlib.repr  # of what a sender wrote: however long or deep it is, a message stays short
_STRING = re.compile(rb'"(?:[^"\\]|\\.)*"')

Array = NDArray[Any]


@dataclass(frozen=True, slots=True)
class Bfloat16:
    """A bfloat16 tensor as its raw bits, u16 of any shape."""

    bits: NDArray[np.uint16]

    @classmethod
    def of(cls, values: NDArray[np.float32]) -> Bfloat16:
        """Round float32 to bfloat16, to nearest even; NaN stays NaN, overflow becomes infinity."""
        raw = np.ascontiguousarray(values, dtype=np.float32).view(np.uint32)
        rounded = ((raw.astype(np.uint64) + 0x7FFF + ((raw >> 16) & 1)) >> 16).astype(np.uint16)
        return cls(np.where(np.isnan(values), np.uint16(0x7FC0), rounded))


@dataclass(frozen=True, slots=True)
class Frame:
    """A decoded frame: string metadata and its tensors, BF16 widened to float32 (exact)."""

    metadata: Mapping[str, str]
    tensors: Mapping[str, Array]
    kinds: Mapping[str, str]  # tensor -> its dtype as written


def encode(metadata: Mapping[str, str], tensors: Mapping[str, Array | Bfloat16]) -> bytes:
    """Return the frame of `tensors`, in the order given, each copied once.

    Raises FrameError `oversized` when the metadata makes a header that `decode` would refuse.
    """
    header: dict[str, object] = {"__metadata__": dict(metadata)}
    parts: list[bytes] = []
    offset = 0
    for name, tensor in tensors.items():
        bits = tensor.bits if isinstance(tensor, Bfloat16) else tensor
        kind = "BF16" if isinstance(tensor, Bfloat16) else _NAMES[bits.dtype]
        end = offset + bits.nbytes
        header[name] = {"dtype": kind, "shape": list(bits.shape), "data_offsets": [offset, end]}
        parts.append(bits.tobytes())
        offset = end
    text = orjson.dumps(header)
    text += b" " * (-len(text) % 8)  # keeps the tensors aligned
    if len(text) > HEADER_LIMIT:
        raise FrameError(Reason.OVERSIZED, f"header of {len(text)} bytes exceeds {HEADER_LIMIT}")
    return b"".join((len(text).to_bytes(8, "little"), text, *parts))


def decode(data: bytes | mmap.mmap, *, limit: int) -> Frame:
    """Return the frame in `data`; the tensors are views of `data` where its alignment allows.

    Raises FrameError with reason `oversized`, `truncated` or `undecodable`.
    """
    if len(data) > limit:
        raise FrameError(Reason.OVERSIZED, f"{len(data)} bytes exceed the limit of {limit}")
    if len(data) < 8:
        raise FrameError(Reason.TRUNCATED, f"{len(data)} bytes cannot hold a header length")
    size = int.from_bytes(data[:8], "little")
    if size > HEADER_LIMIT:
        raise FrameError(Reason.UNDECODABLE, f"header length {size} exceeds {HEADER_LIMIT}")
    base = 8 + size
    if base > len(data):
        raise FrameError(Reason.TRUNCATED, f"header ends at byte {base} of {len(data)}")
    try:
        header = orjson.loads(data[8:base])
    except orjson.JSONDecodeError as error:
        raise FrameError(Reason.UNDECODABLE, f"header is not JSON: {error}") from None
    if not isinstance(header, dict):
        raise FrameError(Reason.UNDECODABLE, "header is not a JSON object")
    metadata = header.pop("__metadata__", None)
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        raise FrameError(Reason.UNDECODABLE, "__metadata__ must map strings to strings")
    if len(header) > TENSOR_LIMIT:
        raise FrameError(Reason.UNDECODABLE, f"{len(header)} tensors exceed {TENSOR_LIMIT}")
    if _strings(data[8:base]) != 1 + 2 * len(metadata) + 5 * len(header):
        raise FrameError(Reason.UNDECODABLE, "the header names something twice")
    spans = sorted((_entry(name, entry) for name, entry in header.items()), key=lambda span: span[1:3])
    return Frame(metadata, _tensors(data, base, spans), {name: kind for name, _, _, kind, _ in spans})


_Span = tuple[str, int, int, str, tuple[int, ...]]  # name, begin, end, dtype, shape


def _tensors(data: bytes | mmap.mmap, base: int, spans: list[_Span]) -> dict[str, Array]:
    tensors: dict[str, Array] = {}
    offset = 0
    for name, begin, end, kind, shape in spans:
        if begin != offset:
            raise FrameError(
                Reason.UNDECODABLE, f"tensor {_shown(name)} starts at {begin}, expected {offset}"
            )
        if base + end > len(data):
            raise FrameError(
                Reason.TRUNCATED, f"tensor {_shown(name)} ends at {base + end} of {len(data)} bytes"
            )
        dtype = DTYPES[kind]
        flat = np.frombuffer(data, dtype=dtype, count=(end - begin) // dtype.itemsize, offset=base + begin)
        if kind == "BF16":
            bits = flat.astype(np.uint32)
            bits <<= 16  # in place: a frame never takes more than twice its size
            flat = bits.view(np.float32)
        elif not flat.flags.aligned and kind != "F16":  # that is widened by whoever reads it
            flat = flat.copy()
        tensors[name] = flat.reshape(shape)
        offset = end
    if base + offset != len(data):
        raise FrameError(Reason.UNDECODABLE, f"{len(data) - base - offset} bytes belong to no tensor")
    return tensors


def _entry(name: str, entry: object) -> _Span:
    if not isinstance(entry, dict) or entry.keys() != _ENTRY:
        raise FrameError(
            Reason.UNDECODABLE, f"tensor {_shown(name)} needs exactly dtype, shape and data_offsets"
        )
    kind, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
    if not isinstance(kind, str) or kind not in DTYPES:
        raise FrameError(
            Reason.UNDECODABLE, f"tensor {_shown(name)} has dtype {_shown(kind)}; known: {', '.join(DTYPES)}"
        )
    if not _naturals(shape) or len(shape) > 2 or any(side >= _SIDE_LIMIT for side in shape):
        raise FrameError(Reason.UNDECODABLE, f"tensor {_shown(name)} has shape {_shown(shape)}")
    if not _naturals(offsets) or len(offsets) != 2 or offsets[0] > offsets[1]:
        raise FrameError(Reason.UNDECODABLE, f"tensor {_shown(name)} has data_offsets {_shown(offsets)}")
    if math.prod(shape) * DTYPES[kind].itemsize != offsets[1] - offsets[0]:
        raise FrameError(
            Reason.UNDECODABLE, f"tensor {_shown(name)}: shape {shape} of {kind} does not fill {offsets}"
        )
    return name, offsets[0], offsets[1], kind, tuple(shape)


def _strings(text: bytes) -> int:
    """Return the number of strings, keys and values, in valid JSON.

    A JSON parser drops all but one of repeated keys, and not every parser the same one; a count
    beyond that of the parsed header gives them away, for the price of a search through it.
    """
    return len(_STRING.findall(text)) if b"\\" in text else text.count(b'"') // 2


def _naturals(value: object) -> bool:
    return isinstance(value, list) and all(type(item) is int and item >= 0 for item in value)
