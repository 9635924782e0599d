"""The byte layout of frames: what is written reads back, and nothing else is ever half read."""

from __future__ import annotations

import json
import struct
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from driftline.errors import FrameError
from driftline.frames.tensors import DTYPES, HEADER_LIMIT, Bfloat16, Frame, decode, encode
from tests.support.frame_decoder import plain_decode

LIMIT = 1 << 20
NAMES = st.text(min_size=1, max_size=8).filter(lambda name: name != "__metadata__")
METADATA = st.dictionaries(st.text(max_size=8), st.text(max_size=12), max_size=4)
ARRAYS = st.sampled_from(["u1", "<u4", "<u8", "<f2", "<f4"]).flatmap(
    lambda dtype: hnp.arrays(dtype, hnp.array_shapes(min_dims=0, max_dims=2, min_side=0, max_side=5))
)
TENSORS = st.dictionaries(NAMES, ARRAYS, max_size=4)


def raw_frame(header: object, body: bytes = b"") -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + body


def entry(**changes: object) -> dict[str, object]:
    return {"dtype": "U8", "shape": [4], "data_offsets": [0, 4]} | changes


def refused(data: bytes, limit: int = LIMIT) -> str:
    with pytest.raises(FrameError) as caught:
        decode(data, limit=limit)
    return caught.value.reason


def agrees(frame: Frame, data: bytes) -> bool:
    """Tell whether an independent decoder reads the same from `data`."""
    plain = plain_decode(data)
    if plain is None:
        return False
    metadata, tensors = plain
    if metadata != dict(frame.metadata) or tensors.keys() != frame.tensors.keys():
        return False
    for name, (kind, shape, raw) in tensors.items():
        ours = frame.tensors[name]
        if kind == "BF16":  # widened: the upper half of each float32
            ours = (ours.view(np.uint32) >> 16).astype(np.uint16)
        if (kind, shape, raw) != (frame.kinds[name], ours.shape, ours.tobytes()):
            return False
    return True


@given(METADATA, TENSORS)
def test_what_is_encoded_decodes_to_the_same_bits(
    metadata: dict[str, str], tensors: dict[str, np.ndarray[Any, Any]]
) -> None:
    data = encode(metadata, tensors)
    frame = decode(data, limit=LIMIT)
    assert frame.metadata == metadata
    assert {name: (a.shape, a.tobytes()) for name, a in frame.tensors.items()} == {
        name: (a.shape, a.tobytes()) for name, a in tensors.items()
    }
    assert agrees(frame, data)


@given(TENSORS)
def test_tensors_lie_aligned_behind_the_header(tensors: dict[str, np.ndarray[Any, Any]]) -> None:
    assert struct.unpack_from("<Q", encode({}, tensors))[0] % 8 == 0


@settings(max_examples=300)
@given(st.binary(max_size=300))
def test_random_bytes_never_raise_anything_but_frame_error(data: bytes) -> None:
    try:
        frame = decode(data, limit=LIMIT)
    except FrameError:
        assert plain_decode(data) is None
    else:
        assert agrees(frame, data)


@settings(max_examples=500)
@given(METADATA, TENSORS, st.data())
def test_a_mutated_frame_is_refused_or_all_its_bytes_are_accounted_for(
    metadata: dict[str, str], tensors: dict[str, np.ndarray[Any, Any]], data: st.DataObject
) -> None:
    value = bytearray(encode(metadata, tensors))
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, len(value)))
        match data.draw(st.sampled_from(["change", "insert", "cut"])):
            case "change" if at < len(value):
                value[at] = data.draw(st.integers(0, 255) | st.sampled_from(b'0123456789[]{},:"-'))
            case "insert":
                value[at:at] = data.draw(st.binary(min_size=1, max_size=4))
            case _:
                del value[at:]
    try:
        frame = decode(bytes(value), limit=LIMIT)
    except FrameError:
        assert plain_decode(bytes(value)) is None
    else:
        assert agrees(frame, bytes(value))


SHAPES = st.lists(st.integers(-1, 2**64) | st.sampled_from([2**31, 2**32, 2**61, 2**63]), max_size=3)
OFFSETS = st.lists(st.integers(-1, 9) | st.sampled_from([2**63, 2**64]), min_size=1, max_size=3)
JUNK = st.none() | st.booleans() | st.floats(allow_nan=False) | st.text(max_size=3) | st.just([True])


@settings(max_examples=500)
@given(st.sampled_from([*DTYPES, "I32", 7]), SHAPES | JUNK, OFFSETS | JUNK, st.binary(max_size=16))
def test_any_description_of_a_tensor_is_refused_or_exact(
    kind: object, shape: object, offsets: object, body: bytes
) -> None:
    data = raw_frame(
        {"__metadata__": {}, "t": {"dtype": kind, "shape": shape, "data_offsets": offsets}}, body
    )
    try:
        frame = decode(data, limit=LIMIT)
    except FrameError:
        assert plain_decode(data) is None
    else:
        assert agrees(frame, data)


@pytest.mark.parametrize("kind", DTYPES)
@pytest.mark.parametrize("side", [2**32, 2**61, 2**63])
def test_an_empty_tensor_with_an_absurd_shape_is_refused(kind: str, side: int) -> None:
    described = {"dtype": kind, "shape": [0, side], "data_offsets": [0, 0]}
    assert refused(raw_frame({"__metadata__": {}, "t": described})) == "undecodable"


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "truncated"),
        (b"\x00" * 7, "truncated"),
        (struct.pack("<Q", 10) + b"{}", "truncated"),
        (struct.pack("<Q", HEADER_LIMIT + 1), "undecodable"),
        (struct.pack("<Q", 2**64 - 1), "undecodable"),
        (raw_frame(b"nonsense"), "undecodable"),
        (raw_frame([]), "undecodable"),
        (raw_frame({}), "undecodable"),
        (raw_frame({"__metadata__": {"a": 1}}), "undecodable"),
        (raw_frame({"__metadata__": {}}, b"x"), "undecodable"),
        (raw_frame({"__metadata__": {}, "t": entry()}, b"123"), "truncated"),
        (raw_frame({"__metadata__": {}, "t": entry()}, b"12345"), "undecodable"),
        (raw_frame({"__metadata__": {}, "t": entry(more=1)}, b"1234"), "undecodable"),
        (raw_frame({"__metadata__": {}, "t": entry(dtype="I8")}, b"1234"), "undecodable"),
        (raw_frame({"__metadata__": {}, "t": entry(shape=[1, 2, 2])}, b"1234"), "undecodable"),
        (raw_frame({"__metadata__": {}, "t": entry(data_offsets=[4, 0])}, b"1234"), "undecodable"),
        (raw_frame({"__metadata__": {}, "a": entry(), "b": entry()}, b"1234"), "undecodable"),
        (
            raw_frame({"__metadata__": {}, "a": entry(), "b": entry(data_offsets=[5, 9])}, b"123456789"),
            "undecodable",
        ),
        (
            raw_frame(
                {"__metadata__": {}} | {str(i): entry(shape=[0], data_offsets=[0, 0]) for i in range(17)}
            ),
            "undecodable",
        ),
    ],
)
def test_each_way_to_be_no_frame_has_its_reason(data: bytes, reason: str) -> None:
    assert refused(data) == reason


def test_a_frame_over_the_limit_is_not_even_looked_at() -> None:
    assert refused(b"\xff" * 101, limit=100) == "oversized"


def test_metadata_that_no_reader_would_take_is_refused_at_the_writer() -> None:
    with pytest.raises(FrameError, match="oversized"):
        encode({"body": "x" * HEADER_LIMIT}, {})


def test_unaligned_tensors_are_copied_to_where_numpy_can_use_them() -> None:
    header = {"__metadata__": {}, "t": {"dtype": "U64", "shape": [1], "data_offsets": [0, 8]}}
    for padding in range(8):
        text = json.dumps(header).encode() + b" " * padding
        tensor = decode(raw_frame(text, struct.pack("<Q", 7)), limit=LIMIT).tensors["t"]
        assert tensor.flags.aligned
        assert tensor.tolist() == [7]


def scalar_bfloat16(value: np.float32) -> int:
    """Round to nearest even, the textbook way."""
    bits = int(value.view(np.uint32))
    upper, lower = bits >> 16, bits & 0xFFFF
    return upper + (lower > 0x8000 or (lower == 0x8000 and upper % 2 == 1))


@given(hnp.arrays("<f4", 8, elements=st.floats(width=32, allow_nan=False)))
def test_bfloat16_rounds_to_nearest_even(values: np.ndarray[Any, np.dtype[np.float32]]) -> None:
    assert Bfloat16.of(values).bits.tolist() == [scalar_bfloat16(value) for value in values]


def test_bfloat16_keeps_nan_and_overflows_to_infinity() -> None:
    payload = np.array([0x7F800001, 0xFFFFFFFF, 0x7F7FFFFF], np.uint32).view(np.float32)
    wide = decode(encode({}, {"t": Bfloat16.of(payload)}), limit=LIMIT).tensors["t"]
    assert np.isnan(wide[:2]).all()
    assert np.isposinf(wide[2])


@given(hnp.arrays("<u2", (2, 3)))
def test_bfloat16_bits_travel_unchanged(bits: np.ndarray[Any, np.dtype[np.uint16]]) -> None:
    frame = decode(encode({}, {"t": Bfloat16(bits)}), limit=LIMIT)
    assert frame.kinds["t"] == "BF16"
    assert (frame.tensors["t"].view(np.uint32) >> 16).tolist() == bits.tolist()


def test_a_tie_goes_to_the_even_bfloat16() -> None:
    ties = np.array([0x3F808000, 0x3F818000, 0xBF808000], np.uint32).view(np.float32)
    assert [hex(bits) for bits in Bfloat16.of(ties).bits.tolist()] == ["0x3f80", "0x3f82", "0xbf80"]
