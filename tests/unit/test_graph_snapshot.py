from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from driftline.errors import InputError
from driftline.frames.tensors import decode as decode_frame
from driftline.frames.tensors import encode as encode_frame
from driftline.graph import GraphSettings, KnnGraph, MethodName, Metric, Snapshot, snapshot_of
from driftline.graph.snapshot import SnapshotDelta, decode, delta_of

SETTINGS = GraphSettings(neighbours=3, metric=Metric.L2, method=MethodName.EXACT)
TABLE = st.dictionaries(st.integers(0, 30), st.integers(0, 9), max_size=14)


def snapshot(rows: dict[int, int]) -> Snapshot:
    vectors = np.array(list(rows.values()), np.float32).reshape(-1, 1)
    return snapshot_of(KnnGraph(SETTINGS).fit(list(rows), vectors))


def through_bytes(stored: Snapshot | SnapshotDelta) -> Snapshot | SnapshotDelta:
    frame = decode_frame(encode_frame(*stored.encode()), limit=1 << 20)
    return decode(frame.metadata, dict(frame.tensors))


def equal(one: Snapshot, other: Snapshot) -> bool:
    return (
        one.metric is other.metric
        and np.array_equal(one.ids, other.ids)
        and np.array_equal(one.neighbours, other.neighbours)
    )


@given(TABLE, TABLE)
def test_a_child_comes_back_from_its_parent_and_the_delta(old: dict[int, int], new: dict[int, int]) -> None:
    parent, child = snapshot(old), snapshot(new)
    delta = through_bytes(delta_of(parent, child))
    assert isinstance(delta, SnapshotDelta)
    assert equal(delta.onto(parent), child)


@given(TABLE)
def test_a_snapshot_comes_back_from_its_bytes(rows: dict[int, int]) -> None:
    stored = snapshot(rows)
    back = through_bytes(stored)
    assert isinstance(back, Snapshot)
    assert equal(back, stored)


def test_a_delta_names_changed_rows_only() -> None:
    rows = {each: each * each for each in range(20)}
    delta = delta_of(snapshot(rows), snapshot(rows | {19: 0}))
    assert 0 < len(delta.rows) < 12
    assert delta_of(snapshot(rows), snapshot(rows)).rows.size == 0


def test_a_loaded_graph_has_the_neighbours_it_was_stored_with() -> None:
    rng = np.random.default_rng(0)
    ids, vectors = np.arange(100, dtype=np.uint64), rng.standard_normal((100, 4)).astype(np.float32)
    graph = KnnGraph(SETTINGS).fit(ids, vectors)
    loaded = snapshot_of(graph).graph(vectors, SETTINGS)
    assert np.array_equal(loaded.kneighbours().ids, graph.kneighbours().ids)


def test_a_delta_onto_another_graph_is_refused() -> None:
    delta = delta_of(snapshot({1: 1, 2: 2}), snapshot({1: 1, 3: 2}))
    with pytest.raises(InputError, match="made against another graph"):
        delta.onto(snapshot({1: 1, 3: 3}))


@pytest.mark.parametrize("damage", ["metric", "missing", "shape", "range"])
def test_a_damaged_snapshot_is_refused(damage: str) -> None:
    meta, tensors = snapshot({1: 1, 2: 2, 3: 5}).encode()
    if damage == "metric":
        meta["metric"] = "manhattan"
    if damage == "missing":
        del tensors["ids"]
    if damage == "shape":
        tensors["ids"] = tensors["ids"][:-1]
    if damage == "range":
        tensors["neighbours"] = np.full((3, 3), 77, np.uint32)
    with pytest.raises(InputError, match="stored graph"):
        decode(meta, tensors)
