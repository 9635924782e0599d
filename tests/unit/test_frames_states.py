"""What travels on the updates topic: row states and markers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from driftline.errors import FrameError
from driftline.frames.states import Marker, States, read_update, write_marker, write_states
from driftline.frames.tensors import Array, decode, encode
from tests.support.samples import born, gradient, log_of

LIMIT = 1 << 20


@st.composite
def states(draw: st.DrawFn) -> States:
    n, dim, size = draw(st.integers(0, 5)), draw(st.integers(1, 3)), draw(st.integers(0, 3))
    return States(
        "items",
        draw(st.integers(0, 2**32 - 1)),
        draw(hnp.arrays("<u8", n)),
        draw(hnp.arrays("<u4", n)),
        draw(hnp.arrays("<u8", n)),
        draw(hnp.arrays("<f4", (n, dim))),
        draw(hnp.arrays("<f4", (n, size))),
        draw(hnp.arrays("u1", n)),
    )


COLUMNS = ("ids", "ordinals", "lsn", "rows", "state", "flags")


def same(a: States, b: States) -> bool:
    return (a.table, a.shard) == (b.table, b.shard) and all(
        getattr(a, name).shape == getattr(b, name).shape
        and getattr(a, name).tobytes() == getattr(b, name).tobytes()
        for name in COLUMNS
    )


@given(states())
def test_states_read_back_to_the_same_bits(value: States) -> None:
    again = read_update(write_states(value), limit=LIMIT)
    assert isinstance(again, States)
    assert same(again, value)


@given(states(), st.integers(0, 6), st.integers(0, 6))
def test_a_part_is_that_slice_of_every_column(value: States, start: int, stop: int) -> None:
    part = value.part(start, stop)
    assert len(part) == len(value.ids[start:stop])
    for name in COLUMNS:
        assert getattr(part, name).tobytes() == getattr(value, name)[start:stop].tobytes()


def marker() -> Marker:
    shard = born()
    position, tensors = shard.position.snapshot()
    return Marker("barrier", "items", 0, 7, {"kind": "version"}, position, tensors)


def test_a_marker_reads_back_with_position_and_members() -> None:
    written = marker()
    again = read_update(write_marker(written), limit=LIMIT)
    assert isinstance(again, Marker)
    assert (again.kind, again.table, again.shard, again.op) == ("barrier", "items", 0, 7)
    assert (again.body, again.position) == (written.body, written.position)
    assert {name: a.tobytes() for name, a in again.tensors.items()} == {
        name: a.tobytes() for name, a in written.tensors.items()
    }


def one_row() -> States:
    shard = born()
    records = log_of([gradient([4], 1)])[1:]
    shard.apply(shard.screen(records), None)
    return shard.take_delta().states


@pytest.mark.parametrize(
    ("name", "column"),
    [
        ("ids", None),
        ("ids", np.zeros(1, np.uint32)),
        ("ids", np.zeros((1, 1), np.uint64)),
        ("ids", np.zeros((), np.uint64)),
        ("ids", np.zeros(2, np.uint64)),
        ("ordinals", np.zeros(1, np.uint64)),
        ("lsn", None),
        ("lsn", np.zeros(0, np.uint64)),
        ("rows", np.zeros(1, np.float32)),
        ("rows", np.zeros((1, 2), np.float16)),
        ("state", np.zeros((2, 0), np.float32)),
        ("flags", np.zeros(2, np.uint8)),
    ],
)
def test_states_whose_columns_do_not_fit_are_refused(name: str, column: Array | None) -> None:
    frame = decode(write_states(one_row()), limit=LIMIT)
    tensors = {key: value for key, value in frame.tensors.items() if key != name}
    if column is not None:
        tensors[name] = column
    with pytest.raises(FrameError, match="undecodable"):
        read_update(encode(frame.metadata, tensors), limit=LIMIT)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"schema": "2"}, "schema"),
        ({"shard": "-1"}, "undecodable"),
        ({"op": "x"}, "undecodable"),
        ({"type": "gradient"}, "unknown_type"),
        ({"body": "[]"}, "undecodable"),
        ({"position": "7"}, "undecodable"),
        ({"position": "{"}, "undecodable"),
    ],
)
def test_a_marker_that_breaks_a_rule_is_refused(change: Mapping[str, str], reason: str) -> None:
    frame = decode(write_marker(marker()), limit=LIMIT)
    with pytest.raises(FrameError) as caught:
        read_update(encode({**frame.metadata, **change}, frame.tensors), limit=LIMIT)
    assert caught.value.reason == reason


@pytest.mark.parametrize("missing", ["type", "table", "shard", "body", "position", "op"])
def test_a_marker_without_one_of_its_fields_is_undecodable(missing: str) -> None:
    frame = decode(write_marker(marker()), limit=LIMIT)
    rest = {name: value for name, value in frame.metadata.items() if name != missing}
    with pytest.raises(FrameError, match="undecodable"):
        read_update(encode(rest, frame.tensors), limit=LIMIT)


def test_states_of_another_shard_stay_apart() -> None:
    again = read_update(write_states(replace(one_row(), shard=5)), limit=LIMIT)
    assert again.shard == 5
