from __future__ import annotations

import pytest

from driftline.errors import ConfigError, StoreUnavailableError
from driftline.rows.cluster import read_slots
from driftline.rows.memory import eviction_refused
from driftline.rows.placement import Holding, View, check_policy, equal, least_stored, read_holding


def holding(
    server: str, *, next: int = 5, place: int = 0, moved_to: str | None = None, values: int = 0
) -> Holding:
    return Holding(server, next, b"o", place, moved_to, 1, values, values)


def test_equal_goes_round_the_servers_in_order_of_names() -> None:
    assert equal(5, ["c", "a", "b"]) == ["a", "b", "c", "a", "b"]


def test_least_stored_fills_the_emptiest_and_counts_what_it_gave() -> None:
    assert least_stored(3, {"a": 100 << 20, "b": 0}) == ["b", "b", "b"]
    assert least_stored(4, {"b": 0, "a": 0}) == ["a", "b", "a", "b"]


def test_the_live_position_that_was_moved_last_is_where_a_shard_is() -> None:
    view = View(0, (holding("a", place=0, moved_to="b", values=9), holding("b", place=1)))
    assert view.live is not None
    assert view.live.server == "b"
    assert [each.server for each in view.remains] == ["a"]


def test_a_server_back_from_an_older_file_does_not_win_over_the_place_the_shard_went_to() -> None:
    view = View(0, (holding("a", next=900, place=1), holding("b", next=7, place=2)))
    assert view.live is not None
    assert view.live.server == "b"
    assert [each.server for each in view.remains] == ["a"]


def test_between_two_servers_the_last_signpost_tells_who_has_the_rows() -> None:
    view = View(0, (holding("a", place=2, moved_to="b"), holding("b", place=1, moved_to="a")))
    assert view.live is None
    assert view.signpost is not None
    assert view.signpost.server == "a"
    assert view.remains == ()


def test_a_server_without_a_position_holds_nothing() -> None:
    assert read_holding("a", [None] * 6, 0) is None
    held = read_holding("a", [b"7", b"me", None, None, b"2", b"3"], 3)
    assert held == Holding("a", 7, b"me", 0, None, 2, 3, 3)


def test_unknown_policies_are_refused() -> None:
    with pytest.raises(ConfigError, match="equal, least-stored"):
        check_policy("random")


def test_only_eviction_under_a_limit_is_refused() -> None:
    assert eviction_refused("a", "noeviction", 1 << 30) is None
    assert eviction_refused("a", "allkeys-lru", 0) is None
    refused = eviction_refused("a", "allkeys-lru", 1 << 30)
    assert refused is not None
    assert "noeviction" in refused


def test_slots_lead_to_masters_by_the_credentials_of_the_node_asked() -> None:
    reply = [
        [0, 100, [b"10.0.0.1", 7000, b"id"], [b"10.0.0.9", 7000, b"replica"]],
        [102, 16383, [b"", 7001, b"id"]],
    ]
    slots = read_slots(reply, "redis://u:p@seed:1")  # type: ignore[arg-type]
    assert slots.master(0) == slots.master(100) == "redis://u:p@10.0.0.1:7000"
    assert slots.master(101) is None
    assert slots.master(16383) == "redis://u:p@seed:1"  # it does not know its own name


def test_a_server_that_is_no_cluster_says_so_without_its_password() -> None:
    with pytest.raises(StoreUnavailableError, match="no cluster node") as raised:
        read_slots(Exception("ERR This instance has cluster support disabled"), "redis://u:hunter2@h:1")
    assert "hunter2" not in str(raised.value)
