"""What a report says of two versions, against the definitions, node by node."""

from __future__ import annotations

import numpy as np
import pytest

from driftline.drift import Side, compare
from driftline.drift.measures import Lists
from driftline.drift.measures.base import Doubles, Floats, Ids
from driftline.graph import Metric
from driftline.report import Domains, Rows, compare_tables, render
from driftline.report.comparing import BINS, METRICS, NEIGHBOUR_COUNTS, Moved
from driftline.report.model import NOBODY, Changes, Column, TableComparison
from driftline.report.neighbours import nearest
from driftline.report.packing import unpacked
from driftline.report.sampling import Sizes, choose, chosen_at_random
from driftline.report.views import REDUCTIONS, place
from tests.support import reports

ROWS, DIMS = 90, 6


def floats(packed: Column) -> Doubles:
    return np.asarray(unpacked(packed), np.float64)


class Pair:
    """Two versions of a table: a third of the rows moved, all were turned by a quarter."""

    def __init__(self, rows: int = ROWS, seed: int = 3) -> None:
        rng = np.random.default_rng(seed)
        self.ids: Ids = np.sort(rng.permutation(10 * rows)[:rows].astype(np.uint64))
        self.before: Floats = rng.normal(size=(rows, DIMS)).astype(np.float32)
        self.after: Floats = self.before.copy()
        self.shoved = np.sort(rng.permutation(rows)[: rows // 3])
        self.after[self.shoved] += rng.normal(scale=0.7, size=(len(self.shoved), DIMS)).astype(np.float32)

    def compared(
        self,
        sizes: Sizes | None = None,
        domains: Domains | None = None,
        reductions: tuple[str, ...] = ("pca",),
    ) -> TableComparison:
        distance = np.linalg.norm(self.after[self.shoved] - self.before[self.shoved], axis=1)
        order = np.argsort(-distance)
        moved = Moved(self.ids[self.shoved][order], distance[order].astype(np.float32))
        chosen = choose(self.ids, self.ids, moved.ids, sizes or Sizes())
        here = np.isin(self.ids, chosen.pool)
        return compare_tables(
            "items",
            Rows("V-R-1.0", self.ids, self.ids[here], self.before[here]),
            Rows("V-R-1.1", self.ids, self.ids[here], self.after[here]),
            moved,
            chosen,
            domains,
            reductions,
        )


def changes_of(found: TableComparison, count: int, metric: Metric) -> Changes:
    return next(each for each in found.changes if (each.neighbours, each.metric) == (count, metric.value))


def by_definition(rows: Floats, count: int, metric: Metric) -> list[set[int]]:
    """The neighbours of each row, as the word says: sort all others by their distance."""
    x = rows.astype(np.float64)
    product = x @ x.T
    lengths = np.sqrt(np.diag(product))
    away = {
        Metric.COSINE: 1 - product / np.outer(lengths, lengths),
        Metric.L2: np.linalg.norm(x[:, None] - x[None, :], axis=2),
        Metric.INNER_PRODUCT: -product,
    }[metric]
    np.fill_diagonal(away, np.inf)
    return [set(line[:count].tolist()) for line in np.argsort(away, axis=1)]


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("count", NEIGHBOUR_COUNTS)
def test_changes_of_neighbours_are_as_they_are_defined(count: int, metric: Metric) -> None:
    pair = Pair()
    found = changes_of(pair.compared(), count, metric)
    old, new = (by_definition(rows, count, metric) for rows in (pair.before, pair.after))
    shared = np.array([len(a & b) for a, b in zip(old, new, strict=True)])
    assert unpacked(found.quantity).tolist() == (count - shared).tolist()
    np.testing.assert_allclose(floats(found.ratio), (count - shared) / count, rtol=1e-6)
    np.testing.assert_allclose(floats(found.similarity), shared / (2 * count - shared), rtol=1e-6)


def test_a_node_has_the_measures_that_the_drift_library_gives_it() -> None:
    pair = Pair()
    every = np.arange(ROWS)
    near = [nearest(pair.ids, rows, every, 10, Metric.COSINE) for rows in (pair.before, pair.after)]
    old, new = (
        Side(pair.ids, rows, Lists(pair.ids[each.places], each.listed))
        for rows, each in zip((pair.before, pair.after), near, strict=True)
    )
    expected = compare(old, new).measures
    found = pair.compared()
    shown = changes_of(found, 10, Metric.COSINE)
    assert unpacked(found.ids).tolist() == pair.ids.tolist()
    np.testing.assert_allclose(floats(found.direction), expected["offset_direction"], atol=1e-5)
    np.testing.assert_allclose(floats(found.distance), expected["offset_distance"], atol=1e-5)
    np.testing.assert_allclose(floats(shown.similarity), expected["jaccard"], rtol=1e-6)
    np.testing.assert_allclose(floats(shown.ratio), expected["change_ratio"], rtol=1e-6)
    assert unpacked(shown.quantity).tolist() == expected["change_quantity"].tolist()
    assert len(found.measures) == 5


def test_packed_lists_name_the_neighbours_nearest_first_with_their_distances() -> None:
    pair = Pair()
    found = pair.compared()
    lists = next(each for each in found.lists if each.metric == "l2")
    named = unpacked(found.named)
    near = nearest(pair.ids, pair.after, np.arange(ROWS), 20, Metric.L2)
    assert named[unpacked(lists.new)].tolist() == pair.ids[near.places].tolist()
    low, high = (floats(each)[:, None] for each in (lists.low, lists.high))
    shown = low + (high - low) * floats(lists.new_distance) / 65535
    np.testing.assert_allclose(shown, near.distances, atol=1e-4)
    assert unpacked(found.drawn_of).tolist() == list(range(ROWS))


def test_a_histogram_counts_the_similarity_of_each_sampled_row_once() -> None:
    pair = Pair()
    found = pair.compared()
    assert len(found.histograms) == len(NEIGHBOUR_COUNTS) * len(METRICS) * 2  # all dimensions, and PCA
    for each in found.histograms:
        assert len(each.moved) == len(each.still) == BINS
        assert (sum(each.moved), sum(each.still)) == (len(pair.shoved), ROWS - len(pair.shoved))
    values = floats(changes_of(found, 5, Metric.L2).similarity)
    shown = next(each for each in found.histograms if (each.neighbours, each.metric) == (5, "l2"))
    both = np.array(shown.moved) + np.array(shown.still)
    assert both.tolist() == np.histogram(values, BINS, (0, 1))[0].tolist()
    assert shown.mean == pytest.approx(values.mean())


def test_histograms_leave_out_the_rows_that_were_drawn_because_they_moved_farthest() -> None:
    pair = Pair(600)
    found = pair.compared(Sizes(points=100, farthest=40, pool=300))
    assert (found.sampled, found.pool) == (100, 300)
    assert 0 < found.farthest <= 40
    assert {sum(each.moved) + sum(each.still) for each in found.histograms} == {100}
    assert len(unpacked(found.ids)) == found.sampled + found.farthest


def test_a_table_that_was_only_turned_has_moved_nowhere() -> None:
    pair = Pair()
    turn, _ = np.linalg.qr(np.random.default_rng(0).normal(size=(DIMS, DIMS)))
    pair.after, pair.shoved = (pair.before @ turn).astype(np.float32), np.arange(ROWS)
    found = pair.compared()
    assert floats(found.distance).max() < 1e-4
    assert min(each.mean for each in found.histograms if each.space == "full") == 1.0
    view = found.views[0]
    assert view.old is not None
    assert view.new is not None
    np.testing.assert_allclose(floats(view.old), floats(view.new), atol=1e-4)


def test_a_row_that_did_not_move_has_one_place_in_both_views() -> None:
    pair = Pair()
    view = pair.compared().views[0]
    assert view.old is not None
    assert view.new is not None
    same = (floats(view.old) == floats(view.new)).all(axis=1)
    assert np.flatnonzero(~same).tolist() == pair.shoved.tolist()


def test_the_views_are_the_two_directions_of_greatest_variance_of_both_versions_together() -> None:
    rng = np.random.default_rng(1)
    rows = (rng.normal(size=(200, 5)) * [9, 4, 1, 1, 1]).astype(np.float32)
    moved = rows.copy()
    moved[:50] += rng.normal(size=(50, 5)).astype(np.float32)
    placed = place(rows, moved, REDUCTIONS["pca"])
    stacked = np.concatenate([rows, moved[:50]]).astype(np.float64)
    values, vectors = np.linalg.eigh(np.cov(stacked.T))
    expected = (stacked - stacked.mean(axis=0)) @ vectors[:, np.argsort(-values)[:2]]
    found = np.concatenate([placed.old, placed.new[:50]])
    np.testing.assert_allclose(np.abs(found), np.abs(expected), atol=1e-3)


def test_a_reduction_that_is_not_installed_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("driftline.report.views.find_spec", lambda name: None)
    views = {each.name: each for each in Pair().compared(reductions=("tsne", "umap")).views}
    assert views["pca"].reason == ""
    assert views["tsne"].reason == "scikit-learn is not installed: pip install 'driftline[views]'"
    assert views["umap"].reason == "umap-learn is not installed: pip install 'driftline[views]'"


def test_a_reduction_that_was_not_asked_for_is_not_made() -> None:
    views = {each.name: each for each in Pair().compared().views}
    assert (views["tsne"].reason, views["tsne"].old) == ("it was not asked for: --view tsne", None)


def test_tsne_keeps_clusters_apart_and_rows_that_did_not_move_in_place() -> None:
    rng = np.random.default_rng(0)
    rows = rng.normal(scale=0.1, size=(60, 5)).astype(np.float32)
    rows[30:] += 5
    moved = rows.copy()
    moved[0] += 5  # into the other cluster
    placed = place(rows, moved, REDUCTIONS["tsne"])
    assert (placed.old[1:] == placed.new[1:]).all()
    left, right = placed.old[1:30].mean(axis=0), placed.old[30:].mean(axis=0)
    before, after = placed.old[0], placed.new[0]
    assert np.linalg.norm(before - left) < np.linalg.norm(before - right)
    assert np.linalg.norm(after - right) < np.linalg.norm(after - left)


def test_rows_of_nan_and_zeros_are_counted_and_have_no_neighbours() -> None:
    pair = Pair()
    pair.after[pair.shoved[0]] = np.nan
    pair.after[pair.shoved[1]] = 0
    found = pair.compared()
    lists = next(each for each in found.lists if each.metric == "cosine")
    assert found.left_out == 2
    assert (floats(lists.new)[pair.shoved[:2]] == NOBODY).all()
    assert found.views[0].new is not None
    assert np.isnan(floats(found.views[0].new)[pair.shoved[0]]).all()


@pytest.mark.parametrize("rows", [0, 1, 2])
def test_tables_of_next_to_nothing_are_compared_too(rows: int) -> None:
    found = Pair(rows).compared()
    assert found.rows_after == rows
    assert len(unpacked(found.ids)) == rows


def test_domains_count_rows_and_changes() -> None:
    pair = Pair()
    domains = Domains(pair.ids[:60], np.arange(60) % 2, ("even", "odd"))
    found = pair.compared(domains=domains)
    shown = {each.name: each for each in found.domains}
    assert [(each.before, each.after) for each in found.domains] == [(30, 30), (30, 30), (30, 30)]
    known = set(pair.shoved.tolist())
    assert shown["even"].changed == len(known & set(range(0, 60, 2)))
    assert shown["not in the file"].changed == len(known & set(range(60, 90)))
    offsets = np.linalg.norm(pair.after - pair.before, axis=1)[sorted(known & set(range(1, 60, 2)))]
    assert shown["odd"].mean_offset == pytest.approx(offsets.mean(), rel=1e-6)


def test_a_sample_does_not_depend_on_the_order_of_ids_or_on_rows_that_came() -> None:
    ids = np.arange(1_000, dtype=np.uint64)
    sample = chosen_at_random(ids, 100)
    assert chosen_at_random(ids[::-1].copy(), 100).tolist() == sample.tolist()
    more = chosen_at_random(np.arange(1_010, dtype=np.uint64), 100)
    assert len(np.intersect1d(sample, more)) >= 90
    assert 300 < sample.mean() < 700


def test_a_page_of_two_large_tables_is_bounded() -> None:
    large = reports.comparison("items", 25_000, 4)
    assert (large.sampled, large.pool) == (2_000, 20_000)
    assert large.farthest > 150
    assert len(render(reports.report(large, large))) < 5_000_000
