from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from driftline.drift.compare import measured
from driftline.drift.measures import (
    NODE_MEASURES,
    Lists,
    Pair,
    domain_auc,
    linear_cka,
    procrustes_residual,
    rotation,
)
from driftline.drift.measures.procrustes import angle

NEIGHBOURS = st.lists(st.integers(1, 12), unique=True, max_size=5)
COORDINATE = st.one_of(st.just(0.0), st.floats(-8, 8, width=16))
VECTOR = st.tuples(COORDINATE, COORDINATE, COORDINATE)


def lists(rows: list[list[int]], width: int = 5) -> Lists:
    ids = np.zeros((len(rows), width), np.uint64)
    listed = np.zeros((len(rows), width), bool)
    for line, row in enumerate(rows):
        ids[line, : len(row)] = row
        listed[line, : len(row)] = True
    return Lists(ids, listed)


def pair(old: list[list[int]], new: list[list[int]]) -> Pair:
    still = np.ones((len(old), 2), np.float32)
    return Pair(still, still, lists(old), lists(new), np.ones(len(old), np.float32))


def moved(old: list[tuple[float, ...]], new: list[tuple[float, ...]], kth: float = 1.0) -> Pair:
    empty = lists([[]] * len(old))
    radius = np.full(len(old), kth, np.float32)
    return Pair(np.array(old, np.float32), np.array(new, np.float32), empty, empty, radius)


def test_the_worked_example_of_the_patent() -> None:
    found = measured(pair([[3, 5, 6]], [[5, 6, 9]]))
    assert found["change_quantity"].tolist() == [1]
    assert found["change_ratio"].tolist() == [pytest.approx(1 / 3)]
    assert found["jaccard"].tolist() == [0.5]


@given(st.lists(st.tuples(NEIGHBOURS, NEIGHBOURS), min_size=1, max_size=6))
def test_measures_of_neighbours_follow_their_definitions(nodes: list[tuple[list[int], list[int]]]) -> None:
    found = measured(pair([old for old, _ in nodes], [new for _, new in nodes]))
    for line, (old, new) in enumerate(nodes):
        a, b = set(old), set(new)
        quantity = max(len(a), len(b)) - len(a & b)
        assert found["change_quantity"][line] == quantity
        assert found["change_ratio"][line] == pytest.approx(quantity / max(len(a), len(b), 1))
        assert found["jaccard"][line] == pytest.approx(len(a & b) / len(a | b) if a | b else 1)
        assert found["rank_biased_overlap"][line] == pytest.approx(direct_overlap(old, new))


def direct_overlap(old: list[int], new: list[int], p: float = 0.9) -> float:
    depth = min(len(old), len(new))
    if not depth:
        return 1.0 if not old and not new else 0.0
    agreements = [len(set(old[:d]) & set(new[:d])) / d for d in range(1, depth + 1)]
    return (1 - p) * sum(a * p**d for d, a in enumerate(agreements)) + agreements[-1] * p**depth


@given(st.lists(st.tuples(VECTOR, VECTOR), min_size=1, max_size=6), st.floats(0.5, 4, width=16))
def test_measures_of_offsets_follow_their_definitions(
    nodes: list[tuple[tuple[float, ...], tuple[float, ...]]], kth: float
) -> None:
    found = measured(moved([old for old, _ in nodes], [new for _, new in nodes], kth))
    offsets = [np.subtract(new, old) for old, new in nodes]
    ways = [offset / np.linalg.norm(offset) if offset.any() else offset for offset in offsets]
    for line, (old, new) in enumerate(nodes):
        size, grown = math.hypot(*old), math.hypot(*new)
        assert found["offset_distance"][line] == pytest.approx(math.dist(old, new), rel=1e-5, abs=1e-9)
        assert found["relative_offset"][line] == pytest.approx(math.dist(old, new) / kth, rel=1e-5, abs=1e-9)
        if size and grown:
            cosine = min(1.0, max(-1.0, float(np.dot(old, new)) / (size * grown)))
            assert found["offset_direction"][line] == pytest.approx(math.acos(cosine), abs=1e-3)
            assert found["norm_ratio"][line] == pytest.approx(grown / size, rel=1e-5)
        else:
            assert found["offset_direction"][line] == 0
            assert found["norm_ratio"][line] == (1 if not size and not grown else np.inf if grown else 0)
        others = np.sum(ways, axis=0) - ways[line]
        length = float(np.linalg.norm(others))
        expected = float(np.dot(ways[line], others)) / length if length > 1e-9 else 0.0
        assert found["direction_coherence"][line] == pytest.approx(expected, abs=1e-6)


@given(st.lists(st.tuples(NEIGHBOURS, NEIGHBOURS, VECTOR, VECTOR), min_size=1, max_size=6))
def test_every_measure_stays_in_its_range(
    nodes: list[tuple[list[int], list[int], tuple[float, ...], tuple[float, ...]]],
) -> None:
    step = moved([node[2] for node in nodes], [node[3] for node in nodes])
    both = Pair(
        step.old, step.new, lists([node[0] for node in nodes]), lists([node[1] for node in nodes]), step.kth
    )
    for measure in NODE_MEASURES:
        values = measure.of(both)
        assert values.shape == (len(nodes),)
        assert np.all((values >= measure.low) & (values <= measure.high)), measure.name


def test_a_node_without_neighbours_has_nothing_to_be_measured_by() -> None:
    lonely = moved([(0, 0)], [(1, 0)], np.inf)
    assert np.isnan(measured(lonely)["relative_offset"][0])
    among_duplicates = moved([(0, 0), (0, 0)], [(1, 0), (0, 0)], 0.0)
    assert measured(among_duplicates)["relative_offset"].tolist() == [np.inf, 0]


def turn(dims: int, seed: int) -> np.ndarray:
    return np.linalg.qr(np.random.default_rng(seed).standard_normal((dims, dims)))[0]


@given(st.integers(0, 2**32 - 1))
def test_a_turned_table_has_no_residual_and_its_rotation_is_found(seed: int) -> None:
    old = np.random.default_rng(seed).standard_normal((30, 5)).astype(np.float32)
    by = turn(5, seed)
    new = (old @ by).astype(np.float32)
    np.testing.assert_allclose(rotation(old, new), by, atol=1e-5)
    assert procrustes_residual(old, new) == pytest.approx(0, abs=1e-10)
    assert linear_cka(old, new) == pytest.approx(1)


def test_the_rotation_of_few_rows_leaves_the_rest_of_space_alone() -> None:
    old = np.eye(4, dtype=np.float32)[:1] * 2
    assert angle(rotation(old, old)) == pytest.approx(0, abs=1e-7)


def test_linear_cka_follows_its_definition_and_ignores_scale_and_shift() -> None:
    rng = np.random.default_rng(0)
    old, new = (rng.standard_normal((40, 6)).astype(np.float32) for _ in range(2))
    x, y = old - old.mean(axis=0), new - new.mean(axis=0)
    gram_x, gram_y = x @ x.T, y @ y.T
    direct = np.sum(gram_x * gram_y) / (np.linalg.norm(gram_x) * np.linalg.norm(gram_y))
    assert linear_cka(old, new) == pytest.approx(direct, rel=1e-4)
    assert linear_cka(old, 3 * old + 2) == pytest.approx(1)


def test_a_classifier_tells_shifted_rows_from_others_but_not_equals_from_equals() -> None:
    rng = np.random.default_rng(0)
    old, same = (rng.standard_normal((600, 8)).astype(np.float32) for _ in range(2))
    assert domain_auc(old, same, seed=1) == pytest.approx(0.5, abs=0.06)
    assert domain_auc(old, same + 1, seed=1) > 0.9
    assert domain_auc(old, 3 * same, seed=1) > 0.8  # the same middle, wider
    assert domain_auc(old[:3], same[:3], seed=1) == 0.5
