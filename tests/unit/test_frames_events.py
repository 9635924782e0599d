"""Typed events on the gradients topic: round trips, and every rule that makes a frame undecodable."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from driftline.errors import FrameError, InputError
from driftline.frames.events import (
    OPS,
    RESTORE_ROWS,
    Delete,
    Event,
    Gradient,
    Op,
    Origin,
    Upsert,
    event_of,
    natural,
    read_event,
    write_event,
)
from driftline.frames.tensors import Array, decode, encode
from tests.oracle import wire
from tests.support.samples import P, f32, gradient, op, restore_rows, u64

LIMIT = 1 << 20
U64 = st.integers(0, 2**64 - 1)
ORIGINS = st.builds(Origin, st.binary(min_size=16, max_size=16), st.integers(0, 2**32 - 1), U64)
TABLES = st.text(st.characters(codec="utf-8"), min_size=1, max_size=8)
SHARDS = st.integers(0, 2**32 - 1)
BODIES = st.dictionaries(st.text(max_size=4), st.none() | st.integers(0, 9) | st.text(max_size=4), max_size=3)
RATES = st.none() | st.floats(0, width=32, allow_nan=False, allow_infinity=False).map(np.float32)


def matrices(rows: int) -> st.SearchStrategy[np.ndarray[Any, Any]]:
    return st.integers(0, 3).flatmap(lambda width: hnp.arrays("<f4", (rows, width)))


@st.composite
def events(draw: st.DrawFn) -> Event:
    ids = draw(hnp.arrays("<u8", st.integers(0, 5)))
    table, shard, origin, n = draw(TABLES), draw(SHARDS), draw(ORIGINS), len(ids)
    kind = draw(st.sampled_from(["gradient", "upsert", "delete", *sorted(OPS)]))
    if kind == "gradient":
        return Gradient(table, shard, origin, ids, draw(matrices(n)), draw(st.none() | U64), draw(RATES))
    if kind == "upsert":
        return Upsert(table, shard, origin, ids, draw(matrices(n)), draw(st.none() | matrices(n)))
    if kind == "delete":
        return Delete(table, shard, origin, ids)
    if kind == RESTORE_ROWS:
        return Op(kind, table, shard, origin, draw(BODIES), ids, draw(matrices(n)), draw(matrices(n)))
    return Op(kind, table, shard, origin, draw(BODIES))


def bits(event: Event) -> dict[str, object]:
    """Return an event's fields with arrays as shape and bytes, so that NaN equals itself."""

    def plain(value: object) -> object:
        return (value.shape, value.tobytes()) if isinstance(value, np.ndarray | np.float32) else value

    return {name: plain(getattr(event, name)) for name in type(event).__dataclass_fields__}


@given(events())
def test_what_is_written_reads_back_to_the_same_bits(event: Event) -> None:
    again = read_event(write_event(event), limit=LIMIT)
    assert type(again) is type(event)
    assert bits(again) == bits(event)


@given(events().filter(lambda event: not isinstance(event, Op) or event.kind in wire.OPS))
def test_an_independent_decoder_reads_the_same_event(event: Event) -> None:
    frame = wire.decode(write_event(event))
    assert (frame.table, frame.shard, frame.producer) == (event.table, event.shard, event.origin.producer)
    assert (frame.epoch, frame.seq) == (event.origin.epoch, event.origin.seq)
    assert list(frame.ids) == event.ids.tolist()
    if isinstance(event, Gradient):
        assert frame.read_pos == event.read_pos
        assert frame.lr == (None if event.lr is None else float(event.lr))


Mutation = Callable[[dict[str, str], dict[str, Array]], None]


def changed(event: Event, mutation: Mutation) -> bytes:
    """Return the frame of `event` after `mutation` of its metadata and tensors."""
    frame = decode(write_event(event), limit=LIMIT)
    metadata, tensors = dict(frame.metadata), dict(frame.tensors)
    mutation(metadata, tensors)
    return encode(metadata, tensors)


def meta(**values: str | None) -> Mutation:
    def mutate(metadata: dict[str, str], tensors: dict[str, Array]) -> None:
        for name, value in values.items():
            if value is None:
                del metadata[name]
            else:
                metadata[name] = value

    return mutate


def tensor(name: str, value: Array | None) -> Mutation:
    def mutate(metadata: dict[str, str], tensors: dict[str, Array]) -> None:
        if value is None:
            del tensors[name]
        else:
            tensors[name] = value

    return mutate


GRADIENT = gradient([1, 2], 1, read_pos=3, lr=0.5)
UPSERT = Upsert("items", 0, Origin(P, 0, 1), u64([1, 2]), f32([[1, 2], [3, 4]]))


@pytest.mark.parametrize(
    ("event", "mutation", "reason"),
    [
        (GRADIENT, meta(schema="2"), "schema"),
        (GRADIENT, meta(schema=None), "schema"),
        (GRADIENT, meta(type="gradients"), "unknown_type"),
        (GRADIENT, meta(type="state"), "unknown_type"),
        (GRADIENT, meta(type=None), "undecodable"),
        (GRADIENT, meta(table=""), "undecodable"),
        (GRADIENT, meta(shard="-1"), "undecodable"),
        (GRADIENT, meta(shard=str(2**32)), "undecodable"),
        (GRADIENT, meta(producer="ab" * 15), "undecodable"),
        (GRADIENT, meta(producer="zz" * 16), "undecodable"),
        (GRADIENT, meta(producer="ab " * 10 + "ab"), "undecodable"),
        (GRADIENT, meta(producer_epoch=str(2**32)), "undecodable"),
        (GRADIENT, meta(seq=str(2**64)), "undecodable"),
        (GRADIENT, meta(seq="1.0"), "undecodable"),
        (GRADIENT, meta(seq="١"), "undecodable"),
        (GRADIENT, meta(seq="0" * 21), "undecodable"),
        (GRADIENT, meta(read_pos=""), "undecodable"),
        (GRADIENT, meta(read_pos="-1"), "undecodable"),
        (GRADIENT, meta(lr=""), "undecodable"),
        (GRADIENT, meta(lr="3f8000"), "undecodable"),
        (GRADIENT, meta(lr="3f 80 00 00"), "undecodable"),
        (GRADIENT, meta(lr="bf800000"), "undecodable"),  # -1
        (GRADIENT, meta(lr="7f800000"), "undecodable"),  # infinity
        (GRADIENT, meta(lr="7fc00000"), "undecodable"),  # NaN
        (GRADIENT, tensor("ids", None), "undecodable"),
        (GRADIENT, tensor("ids", np.zeros(2, np.uint32)), "undecodable"),
        (GRADIENT, tensor("ids", np.zeros((2, 1), np.uint64)), "undecodable"),
        (GRADIENT, tensor("ids", np.zeros(3, np.uint64)), "undecodable"),
        (GRADIENT, tensor("grads", None), "undecodable"),
        (GRADIENT, tensor("grads", np.zeros(2, np.float32)), "undecodable"),
        (GRADIENT, tensor("grads", np.zeros((2, 2), np.uint32)), "undecodable"),
        (UPSERT, tensor("rows", np.zeros((2, 2), np.float16)), "undecodable"),
        (UPSERT, tensor("state", np.zeros((1, 2), np.float32)), "undecodable"),
        (UPSERT, tensor("state", np.zeros((2, 2), np.uint32)), "undecodable"),
        (op("barrier", 3), meta(op="4"), "undecodable"),
        (op("barrier", 3), meta(body="[]"), "undecodable"),
        (op("barrier", 3), meta(body="{"), "undecodable"),
        (op("barrier", 3), meta(body=None), "undecodable"),
        (restore_rows([1], 3), tensor("state", None), "undecodable"),
        (restore_rows([1], 3), tensor("rows", np.zeros((2, 2), np.float32)), "undecodable"),
    ],
)
def test_each_broken_rule_has_its_reason(event: Event, mutation: Mutation, reason: str) -> None:
    with pytest.raises(FrameError) as caught:
        read_event(changed(event, mutation), limit=LIMIT)
    assert caught.value.reason == reason


def test_tensors_and_metadata_that_mean_nothing_for_the_type_are_passed_over() -> None:
    extra = changed(GRADIENT, lambda metadata, tensors: tensors.update(more=np.zeros(3, np.uint8)))
    assert bits(read_event(extra, limit=LIMIT)) == bits(GRADIENT)


@pytest.mark.parametrize("kind", ["F32", "F16", "BF16"])
def test_gradients_arrive_as_float32_rounded_to_the_type_they_travelled_in(kind: str) -> None:
    value = 1 + 2**-9 + 2**-20
    event = read_event(write_event(gradient([1], 1, value=value), as_dtype=kind), limit=LIMIT)
    assert isinstance(event, Gradient)
    assert event.grads.dtype == np.float32
    expected = {"F32": np.float32(value), "F16": 1 + 2**-9, "BF16": 1.0}[kind]
    assert event.grads.tolist() == [[expected, expected]]


def test_an_unknown_gradient_type_is_refused_by_name() -> None:
    with pytest.raises(InputError, match="F32, F16, BF16"):
        write_event(GRADIENT, as_dtype="f16")


def test_a_frame_over_the_limit_is_refused() -> None:
    with pytest.raises(FrameError, match="oversized"):
        read_event(write_event(GRADIENT), limit=100)


def test_event_of_reads_a_frame_decoded_before() -> None:
    assert bits(event_of(decode(write_event(GRADIENT), limit=LIMIT))) == bits(GRADIENT)


@pytest.mark.parametrize("text", ["", "+1", " 1", "1_0", "0x1", "18446744073709551616"])
def test_a_whole_number_is_decimal_digits_and_nothing_else(text: str) -> None:
    found: Mapping[str, str] = {"n": text}
    with pytest.raises(FrameError):
        natural(found, "n")
