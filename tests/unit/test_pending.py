"""What a table handle remembers between calls."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from driftline.client.outbox import Outbox
from driftline.client.pending import Pending
from driftline.client.reading import Rows
from driftline.client.splitting import Sender
from driftline.errors import InputError, RepeatedStepError
from driftline.frames.events import Event, Gradient, Upsert, read_event
from driftline.log import Outgoing
from tests.support.samples import FOREIGN, MINE, TABLE, P

A, B, C = MINE[:3]
ONES = [[1.0, 1.0]]


def pending(dtype: str = "F32") -> Pending:
    return Pending(Outbox(Sender(TABLE, P, 3), dtype))


def events(frames: list[tuple[int, Outgoing]]) -> list[Event]:
    found = [(shard, read_event(frame.value, limit=1 << 20)) for shard, frame in frames]
    assert all(shard == event.shard for shard, event in found)
    return [event for _, event in found]


def one_gradient(frames: list[tuple[int, Outgoing]]) -> Gradient:
    (event,) = events(frames)
    assert isinstance(event, Gradient)
    return event


def read_at(**positions: int) -> Rows:
    where = {int(shard.removeprefix("s")): at for shard, at in positions.items()}
    none = np.zeros(0)
    return Rows(none, none, none, where, {})  # type: ignore[arg-type]


def test_a_push_sums_duplicates_and_splits_by_shard() -> None:
    frames = events(pending().push([B, FOREIGN, B, A], ONES * 4, None, None, 0.5))
    gradients = {event.shard: event for event in frames if isinstance(event, Gradient)}
    assert gradients[0].ids.tolist() == [A, B]
    assert gradients[0].grads.tolist() == [[1, 1], [2, 2]]
    assert gradients[1].ids.tolist() == [FOREIGN]
    assert gradients[0].lr == np.float32(0.5)


def test_a_push_says_where_the_oldest_rows_since_the_last_push_were_read() -> None:
    table = pending()
    table.note_read(read_at(s0=10))
    table.note_read(read_at(s0=20))
    assert one_gradient(table.push([A], ONES, None, None, None)).read_pos == 10
    assert one_gradient(table.push([A], ONES, None, None, None)).read_pos is None
    table.note_read(read_at(s0=30))
    assert one_gradient(table.push([A], ONES, None, {0: 7}, None)).read_pos == 7
    assert one_gradient(table.push([A], ONES, None, None, None)).read_pos is None


def test_a_refused_push_uses_up_neither_step_nor_read() -> None:
    table = pending()
    table.note_read(read_at(s0=10))
    with pytest.raises(InputError):
        table.push([A], [[1.0, np.nan]], 4, None, None)
    gradient = one_gradient(table.push([A], ONES, 4, None, None))
    assert (gradient.origin.seq, gradient.read_pos) == (4 << 16, 10)


def test_a_repeated_step_is_refused_by_name() -> None:
    table = pending()
    table.push([A], ONES, 4, None, None)
    with pytest.raises(RepeatedStepError):
        table.push([A], ONES, 4, None, None)


def test_an_upsert_refuses_duplicates_and_sorts() -> None:
    table = pending()
    with pytest.raises(InputError, match=f"id {A} is given more than once"):
        table.upsert([A, B, A], ONES * 3, None)
    (event,) = events(table.upsert([B, A], [[1, 2], [3, 4]], None))
    assert isinstance(event, Upsert)
    assert (event.ids.tolist(), event.rows.tolist()) == ([A, B], [[3, 4], [1, 2]])


def test_a_delete_takes_duplicates() -> None:
    (event,) = events(pending().delete([B, A, B]))
    assert event.ids.tolist() == [A, B]


def test_what_follows_a_push_stays_within_its_step() -> None:
    table = pending()
    frames = [
        *table.upsert([A], ONES, None),
        *table.push([A], ONES, 5, None, None),
        *table.delete([A]),
        *table.upsert([A], ONES, None),
    ]
    assert [event.origin.seq for event in events(frames)] == [0, 5 << 16, (5 << 16) + 1, (5 << 16) + 2]
    assert {(event.origin.producer, event.origin.epoch) for event in events(frames)} == {(P, 3)}


@pytest.mark.parametrize("lr", [-0.1, np.nan, np.inf])
def test_a_learning_rate_is_a_finite_number_of_at_least_0(lr: float) -> None:
    with pytest.raises(InputError, match="lr"):
        pending().push([A], ONES, None, None, lr)


@pytest.mark.parametrize(("dtype", "value"), [("F16", 65520.0), ("BF16", 3.3961775e38), ("F32", 3e38)])
def test_a_gradient_that_would_overflow_on_its_way_is_refused(dtype: str, value: float) -> None:
    zero = 0.0
    with pytest.raises(InputError, match=f"id {B} is not finite in {dtype}"):
        pending(dtype).push([A, B, B], [[zero, zero], [value, zero], [value, zero]], None, None, None)
    with np.errstate(over="raise"):
        largest = np.nextafter(np.float32(value), np.float32(0))
        sent = one_gradient(pending(dtype).push([A], [[largest, -largest]], None, None, None))
    assert np.isfinite(sent.grads).all()


def test_an_unknown_gradient_type_is_refused() -> None:
    with pytest.raises(InputError, match="F32, F16, BF16"):
        pending("float16")


def test_frames_carry_cloud_event_attributes() -> None:
    ((_, frame),) = pending().push([A], ONES, 5, None, None)
    headers: dict[str, Any] = dict(frame.headers)
    assert headers["ce_type"] == b"driftline.gradient"
    assert headers["ce_source"] == f"producer/{P.hex()}".encode()
    assert headers["ce_id"] == b"3/%d/0" % (5 << 16)
