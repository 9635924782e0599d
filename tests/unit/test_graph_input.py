"""Bad input and faults: a defined result, or an error that names the thing."""

from __future__ import annotations

import builtins
from dataclasses import replace
from types import ModuleType

import numpy as np
import pytest

from driftline.errors import ConfigError, InputError
from driftline.graph import (
    BORN,
    REMOVED,
    G2Settings,
    GraphSettings,
    IndexSettings,
    KnnGraph,
    MethodName,
    Metric,
    ProposerName,
    propose,
    snapshot_of,
    unusable,
)

RNG = np.random.default_rng(0)


def graph(rows: int = 6, metric: Metric = Metric.L2, method: MethodName = MethodName.EXACT) -> KnnGraph:
    settings = GraphSettings(neighbours=3, metric=metric, method=method)
    return KnnGraph(settings).fit(np.arange(rows), RNG.standard_normal((rows, 4)))


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("metric", Metric)
def test_a_row_that_is_not_finite_is_refused_by_name_and_nothing_changes(bad: float, metric: Metric) -> None:
    known = graph(metric=metric)
    before = known.kneighbours().ids
    with pytest.raises(InputError, match=r"row 77 is a vector with NaN or infinity"):
        known.update([3, 77], np.array([[1, 2, 3, 4], [0, bad, 0, 0]]))
    assert np.array_equal(known.kneighbours().ids, before)


def test_a_zero_row_is_refused_under_cosine_only() -> None:
    zero = np.zeros((1, 4))
    with pytest.raises(InputError, match="row 9 is a vector of length zero"):
        graph(metric=Metric.COSINE).update([9], zero)
    for metric in (Metric.L2, Metric.INNER_PRODUCT):
        assert 9 in graph(metric=metric).update([9], zero).ids


def test_a_row_whose_square_leaves_float32_is_refused() -> None:
    with pytest.raises(InputError, match="longer than 1e\\+18"):
        graph().update([9], [[1e30, 0, 0, 0]])


def test_unusable_rows_can_be_found_beforehand() -> None:
    rows = np.array([[1, 0], [np.nan, 0], [0, 0], [1e30, 0]], np.float32)
    assert unusable(rows, Metric.COSINE).tolist() == [False, True, True, True]
    assert unusable(rows, Metric.L2).tolist() == [False, True, False, True]


@pytest.mark.parametrize("rows", [0, 1, 2, 3])
@pytest.mark.parametrize("method", [MethodName.EXACT, MethodName.M_ORDER, MethodName.G2])
def test_fewer_rows_than_neighbours_list_all_others(rows: int, method: MethodName) -> None:
    few = graph(rows, method=method)
    found = few.kneighbours()
    assert found.listed.sum(axis=1).tolist() == [max(rows - 1, 0)] * rows
    assert np.array_equal(found.listed, np.isfinite(found.distances))


@pytest.mark.parametrize("method", [MethodName.EXACT, MethodName.G2])
def test_equal_rows_are_neighbours_at_distance_zero(method: MethodName) -> None:
    equal = KnnGraph(GraphSettings(neighbours=3, metric=Metric.L2, method=method))
    equal.fit(np.arange(30), np.ones((30, 4)))
    found = equal.kneighbours()
    assert np.all(found.distances == 0)
    assert not np.any(found.ids == equal.ids[:, None])


def test_an_id_given_twice_is_refused_by_name() -> None:
    with pytest.raises(InputError, match="id 5 occurs twice"):
        graph().update([5, 5], np.ones((2, 4)))


def test_an_id_deleted_and_born_again_in_one_tick_is_born() -> None:
    tick = graph().update([2], [[9, 9, 9, 9]], removed=[2])
    assert tick.cause[tick.ids == 2].tolist() == [BORN]


def test_removed_rows_are_told_with_their_last_neighbours_and_unknown_ones_are_passed_over() -> None:
    known = graph()
    last = known.kneighbours([4]).ids[0]
    tick = known.update([], np.empty((0, 4)), removed=[4, 1000])
    place = np.flatnonzero(tick.cause == REMOVED)
    assert tick.ids[place].tolist() == [4]
    assert np.array_equal(tick.before.ids[place[0]], last)
    assert not tick.after.listed[place[0]].any()
    with pytest.raises(InputError, match="id 4 has no row"):
        known.kneighbours([4])


def test_other_dimensions_are_refused_with_both_shapes() -> None:
    with pytest.raises(InputError, match=r"shape \(1, 3\) for 1 ids: expected \(1, 4\)"):
        graph().update([1], [[1, 2, 3]])


def test_an_update_before_fit_is_refused() -> None:
    with pytest.raises(InputError, match="before fit"):
        KnnGraph().update([1], [[1.0]])


@pytest.mark.parametrize(
    "changed", [GraphSettings(neighbours=4, metric=Metric.L2), GraphSettings(neighbours=3)]
)
def test_a_stored_graph_is_not_loaded_under_another_k_or_metric(changed: GraphSettings) -> None:
    stored = snapshot_of(graph())
    with pytest.raises(InputError, match="K=3 under l2, the settings ask for K="):
        stored.graph(np.ones((6, 4), np.float32), changed)


def test_settings_out_of_range_are_refused() -> None:
    with pytest.raises(InputError, match="neighbours=0"):
        GraphSettings(neighbours=0)
    with pytest.raises(InputError, match="order=9"):
        GraphSettings(order=9)


def test_without_hnswlib_g2_says_what_to_install_and_auto_goes_exact(monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def without(name: str, *rest: object, **named: object) -> ModuleType:
        if name == "hnswlib":
            raise ImportError(name)
        return real(name, *rest, **named)  # type: ignore[arg-type]

    monkeypatch.setattr(builtins, "__import__", without)
    hnsw = GraphSettings(3, Metric.L2, MethodName.G2, g2=G2Settings(proposer=ProposerName.HNSW))
    with pytest.raises(ConfigError, match=r"driftline\[graph\]"):
        KnnGraph(hnsw).fit(np.arange(6), np.eye(6))
    monkeypatch.setattr("driftline.graph.knn.EXACT_ROWS", 5)
    auto = KnnGraph(replace(hnsw, method=MethodName.AUTO)).fit(np.arange(6), np.eye(6, 4) + 1)
    assert auto.method is MethodName.EXACT
    assert "hnswlib is not installed" in auto.update([1], [[1, 1, 1, 1]]).note


class Failing:
    """An index that fails on command."""

    def __init__(self, inner: propose.Hnsw, on: str) -> None:
        self._inner, self._on = inner, on

    def __getattr__(self, name: str) -> object:
        if name == self._on:
            raise RuntimeError(f"{name} broke")
        return getattr(self._inner, name)


@pytest.mark.parametrize("on", ["knn_query", "add_items"])
def test_an_index_that_fails_makes_every_tick_exact_and_says_so(
    monkeypatch: pytest.MonkeyPatch, on: str
) -> None:
    pytest.importorskip("hnswlib")
    real = propose.new_index
    made: list[object] = []

    def flawed(*settings: object) -> propose.Hnsw:
        made.append(1)
        index = real(*settings)  # type: ignore[arg-type]
        return Failing(index, on) if len(made) > 1 or on == "knn_query" else index  # type: ignore[return-value]

    monkeypatch.setattr(propose, "new_index", flawed)
    quick = IndexSettings(turnover=0.01, pieces=1)
    hnsw = G2Settings(proposer=ProposerName.HNSW, index=quick)
    settings = GraphSettings(neighbours=3, metric=Metric.L2, method=MethodName.G2, g2=hnsw)
    rows = RNG.standard_normal((50, 4)).astype(np.float32)
    failing = KnnGraph(settings).fit(np.arange(50), rows)
    notes = []
    for at in range(6):
        rows[at] += 1
        notes.append(failing.update([at], rows[[at]]).note)
    failing.close()
    assert "every tick is exact from here on" in notes[-1]
    assert failing.method is MethodName.EXACT
    exact = KnnGraph(GraphSettings(neighbours=3, metric=Metric.L2, method=MethodName.EXACT))
    assert np.array_equal(failing.kneighbours().ids, exact.fit(np.arange(50), rows).kneighbours().ids)
