"""Markers in parts: none too large, none complete too early, whoever wrote which part."""

from __future__ import annotations

import random
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from driftline.errors import FrameError
from driftline.frames.markers import Markers, join_marker, split_marker
from driftline.frames.states import Marker, read_update, write_marker
from driftline.frames.tensors import decode, encode
from driftline.shard.position import Position
from driftline.shard.producers import Columns, Producers
from driftline.shard.restored import Restored

LIMIT = 1 << 20
FEW = 200


def position(producers: int, restored: int, quarantined: int) -> Position:
    rng = np.random.default_rng(producers)
    names = rng.integers(0, 256, (producers, 16), np.uint8)
    at = np.arange(producers, dtype=np.uint64)
    ids = np.arange(restored, dtype=np.uint64)
    return Position(
        producers=Producers(Columns(names, at % np.uint64(3), at, at)),
        quarantined={n.to_bytes(16, "big"): n for n in range(quarantined)},
        restored=Restored(ids, ids, ids),
    )


def marker(producers: int = 40, restored: int = 20, quarantined: int = 5, op: int = 7) -> Marker:
    fixed, tensors = position(producers, restored, quarantined).snapshot()
    return Marker("barrier", "items", 0, op, {"kind": "version"}, fixed, tensors)


def bits(whole: Marker) -> object:
    named = replace(whole, tensors={})
    return named, {name: (a.dtype, a.shape, a.tobytes()) for name, a in whole.tensors.items()}


def sent(whole: Marker, limit: int = FEW) -> list[Marker]:
    """Return the parts as a reader sees them."""
    read = [read_update(write_marker(part), limit=LIMIT) for part in split_marker(whole, limit)]
    return [part for part in read if isinstance(part, Marker)]


def test_300000_producers_100000_restored_rows_and_5000_quarantines_make_frames_of_a_mebibyte() -> None:
    whole = marker(300_000, 100_000, 5_000)
    frames = [write_marker(part) for part in split_marker(whole)]
    assert max(map(len, frames)) <= LIMIT
    assert len(frames) > 10
    again = [read_update(frame, limit=LIMIT) for frame in frames]
    assert bits(join_marker(part for part in again if isinstance(part, Marker))) == bits(whole)


@settings(deadline=None)
@given(st.integers(0, 60), st.integers(0, 60), st.integers(0, 60), st.integers(90, 5000))
def test_no_part_has_more_members_than_the_limit_and_all_together_have_them_all(
    producers: int, restored: int, quarantined: int, limit: int
) -> None:
    whole = marker(producers, restored, quarantined)
    parts = sent(whole, limit)
    assert all(sum(a.nbytes for a in part.tensors.values()) <= limit for part in parts)
    assert [(part.part, part.parts) for part in parts] == [(n, len(parts)) for n in range(len(parts))]
    assert bits(join_marker(parts)) == bits(whole)


def test_a_marker_that_fits_is_one_frame() -> None:
    assert [(part.part, part.parts) for part in sent(marker(), LIMIT)] == [(0, 1)]


@settings(deadline=None)
@given(st.randoms(use_true_random=False))
def test_a_marker_is_complete_once_when_its_last_part_is_there(rng: random.Random) -> None:
    whole, reader = marker(), Markers()
    parts = sent(whole)
    order = [*parts, *rng.sample(parts, 2)]
    rng.shuffle(order)
    seen: set[int] = set()
    for part in order:
        before = len(seen)
        seen.add(part.part)
        found = reader.take(part)
        if len(seen) == len(parts) > before:
            assert found is not None
            assert bits(found) == bits(whole)
        else:
            assert found is None


def test_parts_of_an_owner_that_was_cut_off_are_made_up_for_by_the_next_one() -> None:
    whole, reader = marker(), Markers()
    first, second = sent(whole), sent(whole)
    assert [reader.take(part) for part in first[:2]] == [None, None]
    found = [reader.take(part) for part in second]
    assert [each is not None for each in found] == [False] * (len(second) - 1) + [True]


def test_parts_of_another_cut_of_the_same_marker_are_kept_apart() -> None:
    whole, reader = marker(), Markers()
    for part in sent(whole, 500)[:-1]:
        assert reader.take(part) is None
    found = [reader.take(part) for part in sent(whole, 200)]
    assert [each is not None for each in found] == [False] * (len(found) - 1) + [True]
    assert reader.take(sent(whole, 500)[-1]) is None


def test_markers_of_several_ops_do_not_disturb_each_other() -> None:
    reader = Markers()
    one, two = sent(marker(op=1)), sent(marker(op=2))
    found = [reader.take(part) for pair in zip(one, two, strict=True) for part in pair]
    assert [each.op for each in found if each is not None] == [1, 2]


def test_parts_that_do_not_belong_together_are_refused() -> None:
    parts = sent(marker())
    with pytest.raises(FrameError, match="missing or twice"):
        join_marker(parts[1:])
    with pytest.raises(FrameError, match="other tensors"):
        join_marker([replace(parts[0], tensors={}), *parts[1:]])


@pytest.mark.parametrize("cut", [{"part": "2", "parts": "2"}, {"part": "0", "parts": "0"}, {"part": "x"}])
def test_a_part_that_is_none_is_undecodable(cut: dict[str, str]) -> None:
    frame = decode(write_marker(marker()), limit=LIMIT)
    with pytest.raises(FrameError, match="undecodable"):
        read_update(encode({**frame.metadata, **cut}, frame.tensors), limit=LIMIT)


def test_a_marker_that_says_nothing_of_parts_is_whole() -> None:
    frame = decode(write_marker(marker()), limit=LIMIT)
    rest = {name: value for name, value in frame.metadata.items() if name not in ("part", "parts")}
    again = read_update(encode(rest, frame.tensors), limit=LIMIT)
    assert isinstance(again, Marker)
    assert (again.part, again.parts) == (0, 1)
