"""The oracle's rules for events and producers, one by one: what changes, and what does not."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence

import pytest

from tests.oracle import Expected, Outcome, differences, redis_image, writing
from tests.oracle.driver import FOREIGN, MINE, Driver, LogRecord, P, spec_with
from tests.oracle.f32 import to_bytes
from tests.oracle.hashing import initial_row

A, B, C = MINE[:3]


@pytest.fixture
def driver() -> Driver:
    return Driver()


def test_a_first_gradient_gives_birth_from_the_initial_row(driver: Driver) -> None:
    driver.event("gradient", [A], [[0.0, 0.0]], seq=1)
    assert driver.shard.table() == {A: Expected(to_bytes(initial_row(1, 0.1, A, 2)), b"", 1 << 48 | 1, 0)}


def test_births_take_ordinals_in_frame_order_and_never_reuse_one(driver: Driver) -> None:
    driver.gradient([A, B], 1)
    driver.event("delete", [A], seq=2)
    driver.gradient([A, C], 3)
    assert {i: row.ordinal for i, row in driver.shard.table().items()} == {B: 1, A: 2, C: 3}
    assert driver.shard.position().ord == 4


def test_the_lsn_is_generation_and_offset_of_the_last_event_that_changed_the_row() -> None:
    driver = Driver(generation=3)
    driver.gradient([A, B], 1)
    driver.gradient([B], 2)
    table = driver.shard.table()
    assert (table[A].lsn, table[B].lsn) == (3 << 48 | 1, 3 << 48 | 2)


def test_the_learning_rate_of_the_frame_goes_before_that_of_the_spec(driver: Driver) -> None:
    driver.event("upsert", [A], [[1.0, 1.0]], seq=1)
    driver.gradient([A], 2, {"lr": "3f800000"})
    assert driver.shard.table()[A].row == to_bytes([0.0, -1.0])


@pytest.mark.parametrize(("epoch", "seq"), [(1, 5), (1, 4), (0, 9)])
def test_a_sequence_not_above_the_last_is_a_noop(driver: Driver, epoch: int, seq: int) -> None:
    driver.event("upsert", [A], [[1.0, 1.0]], seq=5, epoch=1)
    before = driver.shard.table()
    assert driver.event("upsert", [A], [[2.0, 2.0]], seq=seq, epoch=epoch) == Outcome("no-op", "duplicate")
    assert driver.shard.table() == before


def test_a_higher_producer_epoch_starts_the_seqs_anew(driver: Driver) -> None:
    driver.gradient([A], 5)
    assert driver.event("delete", [A], seq=1, epoch=1).verdict == "applied"


@pytest.mark.parametrize(
    ("reason", "ids", "meta"),
    [
        ("foreign_id", [FOREIGN], {}),
        ("unsorted", [B, A], {}),
        ("unsorted", [A, A], {}),
        ("shard", [A], {"shard": "1"}),
        ("table", [A], {"table": "users"}),
    ],
)
def test_a_rejected_frame_uses_up_its_seq(
    driver: Driver, reason: str, ids: Sequence[int], meta: dict[str, str]
) -> None:
    assert driver.gradient(ids, 1, meta) == Outcome("dead letter", reason)
    assert driver.gradient([A], 1).reason == "duplicate"
    assert driver.shard.table() == {}


def test_a_frame_of_another_dimension_is_rejected(driver: Driver) -> None:
    assert driver.event("gradient", [A], [[1.0] * 3], width=3, seq=1).reason == "dim"


def test_a_frame_over_the_limit_is_rejected(driver: Driver) -> None:
    assert driver.gradient([A], 1, {"padding": "x" * 4096}).reason == "too_large"


@pytest.mark.parametrize(
    "broken",
    [
        b"",
        b"garbage",
        b"\xff" * 64,
        writing.encode(writing.metadata("gradient", "items", 0, P, 1), {}),
        writing.encode(writing.metadata("nonsense", "items", 0, P, 1), {}),
        writing.encode(writing.metadata("gradient", "items", 0, P, 1) | {"schema": "2"}, {}),
        writing.encode({"type": "delete"}, {"ids": writing.ids_tensor([A])}),
        writing.encode(writing.metadata("delete", "items", 0, P, 1), {"ids": writing.ids_tensor([A])}) + b"x",
        writing.encode(
            writing.metadata("delete", "items", 0, P, 1), {"ids": ("U64", (2,), (1).to_bytes(8, "little"))}
        ),
    ],
)
def test_an_undecodable_record_uses_up_nothing_but_its_offset(driver: Driver, broken: bytes) -> None:
    before = driver.shard.position()
    assert driver.record(broken) == Outcome("dead letter", "undecodable")
    after = driver.shard.position()
    assert after.next == before.next + 1
    assert (after.producers, after.op, driver.shard.table()) == ({}, 1, {})


def test_a_gradient_that_is_not_finite_skips_its_id_alone(driver: Driver) -> None:
    outcome = driver.event("gradient", [A, B], [[math.nan, 1.0], [1.0, 1.0]], seq=1)
    assert (outcome.applied, outcome.nonfinite) == (1, 1)
    assert {i: row.ordinal for i, row in driver.shard.table().items()} == {B: 0}


def test_a_result_that_is_not_finite_changes_nothing_not_even_a_birth(driver: Driver) -> None:
    driver.event("upsert", [A], [[-3e38, 1.0]], seq=1)
    before = driver.shard.table()
    outcome = driver.event("gradient", [A, B], [[3e38, 1.0], [3e38, 3e38]], seq=2, meta={"lr": "40800000"})
    assert outcome.nonfinite == 2
    assert driver.shard.table() == before


def test_an_upsert_that_is_not_finite_is_rejected_whole(driver: Driver) -> None:
    assert driver.event("upsert", [A, B], [[1.0, 1.0], [math.inf, 0.0]], seq=1).reason == "non_finite"
    assert driver.shard.table() == {}


def test_an_upsert_keeps_the_ordinal_and_resets_the_state_unless_given() -> None:
    driver = Driver(spec_with(optimizer={"kind": "rowwise_adagrad", "lr": 0.5}))
    driver.event("gradient", [A, B], [[1.0, 1.0]] * 2, seq=1)
    driver.event("upsert", [B], [[5.0, 6.0]], seq=2)
    assert driver.shard.table()[B] == Expected(to_bytes([5.0, 6.0]), to_bytes([0.0]), 1 << 48 | 2, 1)
    driver.event("upsert", [B], [[5.0, 6.0]], seq=3, state=[[7.0]])
    assert driver.shard.table()[B].state == to_bytes([7.0])


def test_deleting_an_unknown_id_changes_nothing(driver: Driver) -> None:
    driver.gradient([A], 1)
    before = driver.shard.table()
    assert driver.event("delete", [B], seq=2) == Outcome("applied", unknown=1)
    assert driver.shard.table() == before


def test_a_producer_silent_for_longer_than_the_ttl_is_forgotten(driver: Driver) -> None:
    driver.gradient([A], 1)
    driver.time += 1000
    assert driver.gradient([A], 1).reason == "duplicate"  # which is a sign of life
    driver.time += 1000
    assert driver.gradient([A], 1).reason == "duplicate"
    driver.time += 1001
    assert driver.gradient([A], 1).verdict == "applied"


def test_log_time_is_the_running_maximum(driver: Driver) -> None:
    driver.time = 5000
    driver.record(b"garbage")
    driver.time = 100
    driver.gradient([A], 1)
    assert driver.shard.position().producers[P].time == 5000


def test_half_precision_gradients_are_widened_exactly(driver: Driver) -> None:
    driver.event("upsert", [A], [[0.0, 0.0]], seq=1)
    for seq, dtype in ((2, "F16"), (3, "BF16")):
        meta = writing.metadata("gradient", "items", 0, P, seq)
        grads = writing.floats_tensor([[-1.5, 0.25]], 2, dtype)
        driver.record(writing.encode(meta, {"ids": writing.ids_tensor([A]), "grads": grads}))
    assert driver.shard.table()[A].row == to_bytes([1.5, -0.25])


def test_a_gap_in_the_log_stops_the_oracle(driver: Driver) -> None:
    with pytest.raises(ValueError, match="gap"):
        driver.shard.apply(LogRecord(7, 0, b""))


def test_small_states_ride_behind_the_row_and_large_ones_in_a_hash_of_their_own() -> None:
    key = (7).to_bytes(8, "little")
    tail = (9).to_bytes(8, "little") + (2).to_bytes(4, "little")
    assert redis_image({7: Expected(b"rrrr", b"s" * 16, 9, 2)}) == ({key: b"rrrr" + tail + b"s" * 16}, {})
    assert redis_image({7: Expected(b"rrrr", b"s" * 20, 9, 2)}) == (
        {key: b"rrrr" + tail},
        {key: b"s" * 20},
    )


def test_differences_name_the_id_and_the_part() -> None:
    row = Expected(b"r", b"s", 1, 2)
    assert differences({1: row}, {1: row}) == []
    assert differences({1: row}, {1: row._replace(lsn=3)})[0].startswith("id 1: lsn differ")
    assert differences({1: row}, {2: row}) == ["id 1: missing", "id 2: should not be there"]


def test_position_fields_are_decimal(driver: Driver) -> None:
    driver.gradient([A], 7)
    fields = driver.shard.position().fields()
    assert fields[b"next"] == b"2"
    assert fields[b"p:" + P] == b"0,7,1000"
    assert json.loads(fields[b"rows"]) == 1
