"""The graph against brute force, after any sequence of fits, moves, births, deletions and restores."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from driftline.graph import (
    BORN,
    GraphSettings,
    KnnGraph,
    MethodName,
    Metric,
    Neighbours,
    snapshot_of,
)
from driftline.graph.results import RESTORED
from driftline.graph.snapshot import Snapshot

K = 3
IDS = st.lists(st.integers(0, 40), min_size=1, max_size=12, unique=True)
SEEDS = st.integers(0, 2**32 - 1)


def direct_distances(rows: np.ndarray, metric: Metric) -> np.ndarray:
    """All distances by their definition, in float64."""
    x = rows.astype(np.float64)
    if metric is Metric.L2:
        return np.asarray(np.sqrt(((x[:, None] - x[None]) ** 2).sum(axis=2)))
    if metric is Metric.COSINE:
        x = x / np.linalg.norm(x, axis=1, keepdims=True)
        return np.asarray(1 - x @ x.T)
    return np.asarray(-(x @ x.T))


class GraphMachine(RuleBasedStateMachine):
    method = MethodName.EXACT

    @initialize(metric=st.sampled_from(Metric), ids=IDS, seed=SEEDS)
    def fit(self, metric: Metric, ids: list[int], seed: int) -> None:
        self.metric = metric
        self.rng = np.random.default_rng(seed)
        self.rows: dict[int, np.ndarray] = {each: self.vector() for each in ids}
        self.stored: dict[int, np.ndarray] = {}
        self.moved = set(ids)
        self.graph = KnnGraph(GraphSettings(neighbours=K, metric=metric, method=self.method))
        self.graph.fit(*self.columns(self.rows))

    def teardown(self) -> None:
        if hasattr(self, "graph"):
            self.graph.close()

    def vector(self) -> np.ndarray:
        """On a grid, so that duplicates and ties are common; never zero."""
        vector = self.rng.integers(-2, 3, 4).astype(np.float32)
        vector[0] += np.float32(7)
        return vector

    @staticmethod
    def columns(rows: dict[int, np.ndarray]) -> tuple[list[int], np.ndarray]:
        return list(rows), np.array(list(rows.values()), np.float32).reshape(len(rows), 4)

    def go_on(self, given: dict[int, np.ndarray], removed: list[int] | None = None, cause: int = 1) -> None:
        old = dict(self.rows)
        self.moved = set(given)
        tick = self.graph.update(*self.columns(given), removed=removed or [], cause=cause)
        self.rows = {key: row for key, row in self.rows.items() if key not in (removed or [])} | given
        causes = dict(zip(tick.ids.tolist(), tick.cause.tolist(), strict=True))
        for key in given:
            assert causes[key] == (BORN if key not in old or key in (removed or []) else cause)
        for place, key in enumerate(tick.ids.tolist()):
            if key in self.rows:
                after = self.graph.kneighbours([key])
                assert np.array_equal(tick.after.ids[place], after.ids[0])

    @rule(ids=IDS)
    def move_or_give_birth(self, ids: list[int]) -> None:
        self.go_on({each: self.vector() for each in ids})

    @rule(ids=IDS)
    def remove(self, ids: list[int]) -> None:
        self.go_on({}, removed=ids)

    @rule(ids=IDS)
    def delete_and_give_birth_in_one_tick(self, ids: list[int]) -> None:
        self.go_on({each: self.vector() for each in ids[: len(ids) // 2]}, removed=ids)

    @rule()
    def make_all_rows_equal(self) -> None:
        vector = self.vector()
        self.go_on(dict.fromkeys(self.rows, vector))

    @rule()
    def store(self) -> None:
        self.stored = dict(self.rows)

    @rule()
    def restore(self) -> None:
        if self.stored:
            self.go_on(self.stored, removed=sorted(set(self.rows) - set(self.stored)), cause=int(RESTORED))

    @rule()
    def go_through_a_snapshot(self) -> None:
        at_rest: Snapshot = snapshot_of(self.graph)
        self.graph.close()
        settings = self.graph.settings
        vectors = np.array([self.rows[int(each)] for each in at_rest.ids], np.float32).reshape(-1, 4)
        self.graph = at_rest.graph(vectors, settings)

    @invariant()
    def neighbours_are_those_of_brute_force(self) -> None:
        if not hasattr(self, "graph"):
            return
        ids = sorted(self.rows)
        assert self.graph.ids.tolist() == ids
        found = self.graph.kneighbours()
        self.compare(ids, found)

    def compare(self, ids: list[int], found: Neighbours) -> None:
        rows = np.array([self.rows[each] for each in ids], np.float32).reshape(len(ids), 4)
        near = direct_distances(rows, self.metric)
        np.fill_diagonal(near, np.inf)
        wanted = min(K, max(len(ids) - 1, 0))
        assert found.listed.sum(axis=1).tolist() == [wanted] * len(ids)
        place = {each: at for at, each in enumerate(ids)}
        for line in range(len(ids)):
            named = [place[int(each)] for each in found.ids[line, :wanted]]
            assert len(set(named)) == wanted
            np.testing.assert_allclose(
                near[line, named], found.distances[line, :wanted], rtol=2e-5, atol=2e-6
            )
        self.judge(ids, found.distances[:, :wanted], np.sort(near, axis=1)[:, :wanted])

    def judge(self, ids: list[int], found: np.ndarray, best: np.ndarray) -> None:
        # Distances decide: where rows tie, any of them is right.
        np.testing.assert_allclose(found, best, rtol=2e-5, atol=2e-6)


class G2Machine(GraphMachine):
    """Lists are whole, their distances true, and those of rows that just moved exact.

    With so few rows every cell is looked into, so a row that moved finds its nearest by comparison with
    all. What can be missing is such a row in the list of one that stayed and is not among its own 4K + 1
    nearest. Under L2 and cosine that is rare: to be near is mutual. Under the inner product it is not: a
    row that grows belongs into the lists of rows that are not near to it, and no share is promised
    (the least met was .56, after all rows had been equal); the audit tells it as `affected`.
    """

    method = MethodName.G2

    def judge(self, ids: list[int], found: np.ndarray, best: np.ndarray) -> None:
        right = found <= best * (1 + np.sign(best) * np.float32(2e-5)) + np.float32(2e-6)
        assert right[[each in self.moved for each in ids]].all()
        if self.metric is not Metric.INNER_PRODUCT:
            # One entry in ten: three times what 250 tables of each metric have missed at most (.967).
            assert right.size < 30 or right.mean() >= 0.9, right.mean()


TestExact = GraphMachine.TestCase
TestExact.settings = settings(max_examples=40, stateful_step_count=12, deadline=None)
TestG2 = G2Machine.TestCase
TestG2.settings = settings(max_examples=40, stateful_step_count=12, deadline=None)


@pytest.fixture(autouse=True, scope="module")
def _needs_hnswlib() -> None:
    pytest.importorskip("hnswlib")
