from __future__ import annotations

import contextlib
import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from driftline import TableSpec
from driftline.client.outbox import Outbox
from driftline.client.pending import Pending
from driftline.client.splitting import Sender
from driftline.errors import FrameError
from driftline.frames.events import Gradient, Origin, Upsert, read_event
from driftline.ingest import MAX_MESSAGE, frames_of, parse_message
from driftline.log import Outgoing
from driftline.shard.screen import MAX_FRAME

SPEC = TableSpec("items", 3, shards=4)
ORIGIN = Origin(bytes(16), 0, 7)
MAX_ID = 2**64 - 1

ids = st.integers(0, MAX_ID) | st.integers(0, 9)
values = st.floats(width=64, allow_nan=False, allow_infinity=False, min_value=-1e37, max_value=1e37)
batches = st.lists(st.tuples(ids, st.lists(values, min_size=3, max_size=3)), min_size=1, max_size=30)
read_positions = st.dictionaries(st.integers(0, 3), st.integers(0, MAX_ID))


def frames(message: object) -> list[Gradient | Upsert]:
    return frames_of(parse_message(json.dumps(message).encode()), SPEC, ORIGIN)


def refusal(message: object) -> str:
    with pytest.raises(FrameError) as caught:
        frames(message)
    return caught.value.reason


def seen(frame: object) -> tuple[object, ...]:
    """Everything in a frame but who sent it, bit for bit."""
    assert isinstance(frame, Gradient | Upsert)
    if isinstance(frame, Upsert):
        return (frame.table, frame.shard, frame.ids.tolist(), frame.rows.tobytes())
    lr = None if frame.lr is None else frame.lr.tobytes()
    return (frame.table, frame.shard, frame.ids.tolist(), frame.grads.tobytes(), frame.read_pos, lr)


def client_frames(sent: list[tuple[int, Outgoing]]) -> list[tuple[object, ...]]:
    return [seen(read_event(record.value, limit=MAX_FRAME)) for _, record in sent]


def client() -> Pending:
    return Pending(Outbox(Sender(SPEC, bytes(16), 0)))


def batch(**changes: object) -> dict[str, object]:
    return {"table": "items", "ids": [1, 2], "grads": [[1, 2, 3], [4, 5, 6]]} | changes


@given(batches, read_positions, st.none() | st.floats(0, 10, width=32))
def test_a_gradient_message_gives_the_frames_of_a_push_of_the_same_arrays(
    rows: list[tuple[int, list[float]]], read: dict[int, int], lr: float | None
) -> None:
    numbers = np.array([row for row, _ in rows], np.uint64)
    grads = np.array([grad for _, grad in rows], np.float64)
    message = batch(ids=numbers.tolist(), grads=grads.tolist(), read_pos={str(s): p for s, p in read.items()})
    if lr is not None:
        message["lr"] = lr
    assert list(map(seen, frames(message))) == client_frames(client().push(numbers, grads, 0, read, lr))


@given(st.dictionaries(ids, st.lists(values, min_size=3, max_size=3), min_size=1, max_size=30))
def test_an_upsert_message_gives_the_frames_of_an_upsert_of_the_same_arrays(
    rows: dict[int, list[float]],
) -> None:
    message = {"table": "items", "type": "upsert", "ids": list(rows), "rows": list(rows.values())}
    numbers, matrix = np.array(list(rows), np.uint64), np.array(list(rows.values()))
    assert list(map(seen, frames(message))) == client_frames(client().upsert(numbers, matrix, None))


@given(batches)
def test_decimal_texts_are_ids_too(rows: list[tuple[int, list[float]]]) -> None:
    grads = [grad for _, grad in rows]
    texts = [str(row) if place % 3 else row for place, (row, _) in enumerate(rows)]
    plain = frames(batch(ids=[row for row, _ in rows], grads=grads))
    assert list(map(seen, frames(batch(ids=texts, grads=grads)))) == list(map(seen, plain))


def test_one_row_needs_no_lists_of_lists() -> None:
    (frame,) = frames({"table": "items", "id": 5, "grad": [1, 2.5, -0.0], "lr": 0.5})
    assert seen(frame) == seen(frames(batch(ids=[5], grads=[[1, 2.5, -0.0]], lr=0.5))[0])
    (row,) = frames({"table": "items", "type": "upsert", "id": "5", "row": [1, 2, 3]})
    assert isinstance(row, Upsert)
    assert row.rows.tolist() == [[1, 2, 3]]


def test_all_frames_of_a_message_have_the_same_origin_and_a_shard_of_their_own() -> None:
    found = frames(batch(ids=list(range(100)), grads=[[0, 1, 2]] * 100))
    assert [frame.shard for frame in found] == [0, 1, 2, 3]
    assert all(frame.origin == ORIGIN for frame in found)


def test_whole_numbers_are_rounded_to_float32_as_if_they_had_a_point() -> None:
    (whole,) = frames({"table": "items", "id": 1, "grad": [16777217, 2**63, 2**64 - 1]})
    (point,) = frames({"table": "items", "id": 1, "grad": [16777217.0, 2.0**63, 2.0**64]})
    assert seen(whole) == seen(point)


@pytest.mark.parametrize(
    "wrong", [-1, 2**64, 1.0, 1e3, True, None, "", "-1", "1.0", " 1", "1_0", "٣", "18446744073709551616", [1]]
)
def test_what_is_no_whole_number_from_0_to_2_64_is_no_id(wrong: object) -> None:
    assert refusal(batch(ids=[3, wrong])) == "bad_message"


@pytest.mark.parametrize("wrong", [True, None, "1.5", [1.0], {}])
def test_what_is_no_number_is_no_value(wrong: object) -> None:
    assert refusal(batch(grads=[[1, 2, 3], [4, wrong, 6]])) == "bad_message"


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"table": 5}, "bad_message"),
        ({"tabel": "items"}, "bad_message"),
        ({"ids": []}, "bad_message"),
        ({"ids": [1]}, "bad_message"),
        ({"ids": 1}, "bad_message"),
        ({"grads": [1, 2]}, "bad_message"),
        ({"rows": [[1, 2, 3]]}, "bad_message"),
        ({"id": 1}, "bad_message"),
        ({"type": "delete"}, "unsupported"),
        ({"type": "barrier"}, "unsupported"),
        ({"type": ["gradient"]}, "unsupported"),
        ({"grads": [[1, 2], [3, 4]]}, "wrong_dim"),
        ({"grads": [[1, 2, 3], [4, 5]]}, "wrong_dim"),
        ({"grads": [[], []]}, "wrong_dim"),
        ({"grads": [[1, 2, 3], [4, 1e39, 6]]}, "non_finite"),
        ({"ids": [1, 1], "grads": [[3e38, 0, 0], [3e38, 0, 0]]}, "non_finite"),
        ({"lr": "0.1"}, "bad_message"),
        ({"lr": True}, "bad_message"),
        ({"lr": None}, "bad_message"),
        ({"lr": -0.5}, "bad_message"),
        ({"lr": 1e39}, "bad_message"),
        ({"read_pos": 5}, "bad_message"),
        ({"read_pos": {"x": 5}}, "bad_message"),
        ({"read_pos": {"0": True}}, "bad_message"),
        ({"read_pos": {"0": -1}}, "bad_message"),
        ({"read_pos": {"4": 1}}, "bad_message"),
        ({"type": "upsert"}, "bad_message"),
    ],
)
def test_a_message_that_is_wrong_is_refused_by_reason(changes: dict[str, object], reason: str) -> None:
    assert refusal(batch(**changes)) == reason


def test_an_upsert_with_an_id_twice_is_refused() -> None:
    message = {"table": "items", "type": "upsert", "ids": [4, 4], "rows": [[1, 2, 3], [1, 2, 3]]}
    assert refusal(message) == "duplicate_ids"


@pytest.mark.parametrize("key", ["lr", "read_pos"])
def test_an_upsert_has_no_learning_rate_and_no_read_position(key: str) -> None:
    message = {"table": "items", "type": "upsert", "id": 4, "row": [1, 2, 3], key: {} if key[0] == "r" else 1}
    assert refusal(message) == "bad_message"


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"{",
        b"[]",
        b"7",
        b"null",
        b"\xff",
        b'{"table": "items", "id": 1, "grad": [NaN, 0, 0]}',
        b'{"table": "items", "id": 1, "grad": [Infinity, 0, 0]}',
        b'{"table": "items", "id": 1, "grad": ' + b"[" * 5000 + b"]" * 5000 + b"}",
    ],
)
def test_what_is_not_a_json_object_is_undecodable(data: bytes) -> None:
    with pytest.raises(FrameError) as caught:
        parse_message(data)
    assert caught.value.reason == "undecodable"


def test_a_number_beyond_float64_is_refused() -> None:
    with pytest.raises(FrameError):
        parse_message(b'{"table": "items", "id": 1, "grad": [1e999, 0, 0]}')


def test_a_message_over_the_size_limit_is_not_even_parsed() -> None:
    with pytest.raises(FrameError, match="oversized"):
        parse_message(b"[" * (MAX_MESSAGE + 1))


@given(st.binary(max_size=60) | st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4)
    | st.dictionaries(st.sampled_from(["table", "type", "id", "ids", "grad", "grads", "row", "lr"]), inner),
    max_leaves=12,
).map(lambda value: json.dumps(value).encode()))  # fmt: skip
def test_whatever_comes_it_is_taken_or_refused_and_nothing_else(data: bytes) -> None:
    with contextlib.suppress(FrameError):
        frames_of(parse_message(data), SPEC, ORIGIN)
