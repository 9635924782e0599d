"""The oracle's rules for ops: who may send them, restores, and the gradients that come too late."""

from __future__ import annotations

import pytest

from driftline.ids import OPS_PRODUCER
from tests.oracle import Expected, Outcome, wire, writing
from tests.oracle.driver import KEYS, MINE, Driver, P, Q, spec_with
from tests.oracle.f32 import to_bytes

A, B, C = MINE[:3]


@pytest.fixture
def driver() -> Driver:
    return Driver()


def read(offset: int) -> dict[str, str]:
    return {"read_pos": str(1 << 48 | offset)}


def test_the_ops_producer_is_the_one_of_the_format() -> None:
    assert wire.OPS_PRODUCER == OPS_PRODUCER


def test_an_op_without_a_valid_mac_is_forged_and_uses_up_no_seq(driver: Driver) -> None:
    value = writing.op("quarantine", "items", 0, 2, {"producer": P.hex()})
    assert driver.record(value).reason == "forged"
    assert driver.record(value, writing.sign(value, "k1", b"wrong")).reason == "forged"
    assert driver.record(value, writing.sign(value, "nobody", b"secret")).reason == "forged"
    assert driver.shard.position().op == 1


def test_a_gradient_under_the_ops_producers_name_is_forged(driver: Driver) -> None:
    assert driver.event("gradient", [A], [[1.0, 1.0]], seq=1, producer=OPS_PRODUCER).reason == "forged"


def test_a_retired_key_still_vouches(driver: Driver) -> None:
    value = writing.op("barrier", "items", 0, 2)
    assert driver.record(value, writing.sign(value, "retired", KEYS["retired"])).verdict == "applied"


def test_an_op_seen_before_is_a_noop(driver: Driver) -> None:
    driver.op("barrier")
    assert driver.op("quarantine", {"producer": P.hex()}, seq=2) == Outcome("no-op", "duplicate")
    assert driver.shard.position().quarantined == {}


def test_a_barrier_changes_nothing_but_next_and_op(driver: Driver) -> None:
    driver.gradient([A], 1)
    before, table = driver.shard.position(), driver.shard.table()
    driver.op("barrier")
    after = driver.shard.position()
    assert driver.shard.table() == table
    assert {name for name in after.fields() if after.fields()[name] != before.fields()[name]} == {
        b"next",
        b"op",
    }


def test_a_quarantined_producer_is_shut_out_and_still_uses_up_seqs(driver: Driver) -> None:
    driver.op("quarantine", {"producer": P.hex()})
    assert driver.gradient([A], 1) == Outcome("dead letter", "quarantined")
    assert driver.shard.position().producers[P].seq == 1
    assert driver.event("gradient", [A], [[1.0, 1.0]], seq=1, producer=Q).verdict == "applied"


def test_restored_rows_keep_living_ordinals_and_take_the_ops_lsn(driver: Driver) -> None:
    driver.gradient([A, B], 1)
    driver.restore_rows([B, C], [[1.0, 1.0], [2.0, 2.0]])
    table = driver.shard.table()
    assert table[B] == Expected(to_bytes([1.0, 1.0]), b"", 1 << 48 | 2, 1)
    assert table[C] == Expected(to_bytes([2.0, 2.0]), b"", 1 << 48 | 2, 2)


@pytest.mark.parametrize(("read_pos", "applied"), [(2, 1), (3, 2)])
def test_a_gradient_read_before_a_restore_rows_is_dropped_for_its_ids(
    driver: Driver, read_pos: int, applied: int
) -> None:
    driver.gradient([A, B], 1)
    driver.restore_rows([B], [[1.0, 1.0]])  # at offset 2
    outcome = driver.gradient([A, B], 2, read(read_pos))
    assert (outcome.applied, outcome.stale) == (applied, 2 - applied)


def test_a_restore_rows_is_forgotten_after_the_ttl(driver: Driver) -> None:
    driver.restore_rows([A], [[1.0, 1.0]])
    driver.time += 1000
    assert driver.gradient([A], 1, read(1)).stale == 1
    driver.time += 1
    assert driver.gradient([A], 2, read(1)).applied == 1


def test_a_restore_swaps_the_rows_and_keeps_the_ordinal_counter(driver: Driver) -> None:
    driver.gradient([A, B], 1)
    driver.versions = {A: Expected(to_bytes([1.0, 2.0]), b"", 1, 0)}
    driver.op("prepare", {"version": "V-R-1.0"})
    assert driver.shard.position().prep == 2
    driver.op("restore", {"version": "V-R-1.0", "from_epoch": 0})
    assert driver.shard.table() == driver.versions
    position = driver.shard.position()
    assert (position.epoch, position.floor, position.ord, position.rows, position.prep) == (
        1,
        1 << 48 | 3,
        2,
        1,
        0,
    )


def test_a_restore_from_another_epoch_is_a_noop(driver: Driver) -> None:
    driver.gradient([A], 1)
    before = driver.shard.table()
    assert driver.op("restore", {"from_epoch": 1}) == Outcome("no-op", "epoch")
    assert (driver.shard.table(), driver.shard.position().floor) == (before, 0)


@pytest.mark.parametrize(("read_pos", "verdict"), [(1, "no-op"), (2, "applied")])
def test_a_gradient_read_before_a_restore_is_dropped(driver: Driver, read_pos: int, verdict: str) -> None:
    driver.op("restore", {"from_epoch": 0})  # at offset 1
    assert driver.gradient([A], 1, read(read_pos)).verdict == verdict


def test_reading_at_position_0_is_not_stale_while_nothing_was_restored(driver: Driver) -> None:
    assert driver.gradient([A], 1, read(0)).applied == 1


@pytest.mark.parametrize(("policy", "after_restore"), [("apply", "applied"), ("drop", "no-op")])
def test_without_read_pos_the_policy_decides_once_there_was_a_restore(
    policy: str, after_restore: str
) -> None:
    driver = Driver(spec_with(policy__without_read_pos=policy))
    assert driver.gradient([A], 1).verdict == "applied"
    driver.op("restore", {"from_epoch": 0})
    assert driver.gradient([A], 2).verdict == after_restore


def test_a_later_spec_changes_the_rules_but_not_the_shape(driver: Driver) -> None:
    assert driver.op("spec", spec_with(optimizer__lr=1.0)).verdict == "applied"
    driver.event("upsert", [A], [[1.0, 1.0]], seq=1)
    driver.gradient([A], 2)
    assert driver.shard.table()[A].row == to_bytes([0.0, -1.0])
    assert driver.op("spec", spec_with(dim=3)) == Outcome("dead letter", "spec")
