"""Graphs stored beside versions: exact bits back, deltas, collection, damage."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from driftline.errors import DamagedObjectError, InputError, ObjectMissingError, UnknownVersionError
from driftline.graph import GraphSettings, KnnGraph, MethodName, Metric, Snapshot, snapshot_of
from driftline.versions import (
    Manifest,
    Repository,
    collect,
    fsck,
    load_graph,
    open_repository,
    open_store,
    retire,
    store_graph,
)
from tests.support.versioning import DIM, GRACE, Clock, Live

SETTINGS = GraphSettings(neighbours=3, metric=Metric.L2, method=MethodName.EXACT)
COUNT = 200


class Scene:
    """A line of versions, each with a graph that followed the one before."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.live, self.clock = Live(), Clock()
        self.repository: Repository = open_repository(
            open_store(f"file://{folder}"), "g", now=self.clock, grace=GRACE
        )
        self.live.upsert(range(COUNT))
        self.rows = np.random.default_rng(0).standard_normal((COUNT, DIM)).astype(np.float32)
        self.graph = KnnGraph(SETTINGS).fit(np.arange(COUNT), self.rows)
        self.versions: list[Manifest] = []
        self.stored: dict[str, Snapshot] = {}

    def commit(self, changed: int = 2) -> int:
        """Move some rows, commit, store the graph; return the bytes that took."""
        number = len(self.versions)
        if number:
            self.live.upsert(range(number, number + changed))
            self.rows[number : number + changed] *= -1
            some = np.arange(number, number + changed)
            self.graph.update(some, self.rows[some])
        parent = self.versions[-1] if self.versions else None
        made = self.live.commit(self.repository, f"op-{number}", parent)
        self.versions.append(made)
        self.stored[made.version] = snapshot_of(self.graph)
        return store_graph(self.repository, made.version, "items", self.stored[made.version])

    def objects(self) -> list[str]:
        return sorted(info.key for info in self.repository.store.list("graphs"))


@pytest.fixture
def scene(tmp_path: Path) -> Scene:
    return Scene(tmp_path / "store")


def assert_as_stored(scene: Scene, version: str) -> None:
    found, stored = load_graph(scene.repository, version, "items"), scene.stored[version]
    assert found is not None
    assert found.metric is stored.metric
    assert found.ids.tobytes() == stored.ids.tobytes()
    assert found.neighbours.tobytes() == stored.neighbours.tobytes()


def test_every_version_has_its_graph_back_to_the_bit(scene: Scene) -> None:
    for _ in range(20):
        scene.commit()
    for made in scene.versions:
        assert_as_stored(scene, made.version)


def test_a_graph_is_a_delta_onto_its_parents_until_the_chain_is_long(scene: Scene) -> None:
    took = [scene.commit() for _ in range(19)]
    assert max(took[1:17]) < took[0] / 2
    assert took[17] > took[0] / 2  # whole again: a load lays 16 deltas at most


def test_a_graph_that_changed_everywhere_is_stored_whole(scene: Scene) -> None:
    scene.commit()
    scene.commit(changed=150)
    assert [key.split("/")[-1][:2] for key in scene.objects()] == ["00", "00"]


def test_a_version_without_a_graph_has_none_and_storing_again_changes_nothing(scene: Scene) -> None:
    scene.commit()
    again = scene.stored[scene.versions[0].version]
    assert store_graph(scene.repository, scene.versions[0].version, "items", again) == 0
    scene.live.upsert([1])
    bare = scene.live.commit(scene.repository, "bare", scene.versions[0])
    assert load_graph(scene.repository, bare.version, "items") is None


def test_k_or_metric_changed_stores_the_whole_graph(scene: Scene) -> None:
    scene.commit()
    scene.live.upsert([1])
    child = scene.live.commit(scene.repository, "other", scene.versions[0])
    wider = snapshot_of(KnnGraph(replace(SETTINGS, neighbours=4)).fit(np.arange(COUNT), scene.rows))
    store_graph(scene.repository, child.version, "items", wider)
    found = load_graph(scene.repository, child.version, "items")
    assert found is not None
    assert np.array_equal(found.neighbours, wider.neighbours)


def test_what_cannot_be_the_versions_graph_is_refused(scene: Scene) -> None:
    scene.commit()
    larger = snapshot_of(KnnGraph(SETTINGS).fit(np.arange(COUNT + 1), np.ones((COUNT + 1, DIM))))
    with pytest.raises(InputError, match=f"a graph of {COUNT + 1} rows for items"):
        store_graph(scene.repository, scene.versions[0].version, "items", larger)
    with pytest.raises(UnknownVersionError):
        store_graph(scene.repository, "V-R-9.9", "items", larger)


def test_collection_keeps_what_a_live_version_rests_on(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    for _ in range(5):
        scene.commit()
    # The clock of the store turns on by more than a grace period with each collection.
    turned = [0.0]
    monkeypatch.setattr("driftline.versions.collecting.store_now", lambda store: turned[0])
    newest = max(info.modified for info in scene.repository.store.list(""))
    first = [each.version for each in scene.versions]
    retire(scene.repository, [first[1], first[2]])
    for round_ in range(1, 5):
        turned[0] = newest + round_ * 2 * GRACE
        collect(scene.repository)
    assert_as_stored(scene, first[3])  # its chain goes through the graphs of removed versions
    assert_as_stored(scene, first[4])
    retire(scene.repository, [first[3]])
    assert len(scene.objects()) == 5


def test_fsck_names_a_damaged_graph_and_a_missing_one(scene: Scene) -> None:
    for _ in range(3):
        scene.commit()
    assert fsck(scene.repository) == []
    path = scene.folder / scene.objects()[1]
    whole = path.read_bytes()
    path.chmod(0o644)
    path.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    assert {each.object for each in fsck(scene.repository)} == {scene.objects()[1]}
    with pytest.raises(DamagedObjectError, match=scene.objects()[1]):
        load_graph(scene.repository, scene.versions[2].version, "items")
    path.unlink()
    with pytest.raises(ObjectMissingError):
        load_graph(scene.repository, scene.versions[2].version, "items")
    assert {each.code for each in fsck(scene.repository)} == {"missing"}


def test_a_graph_that_does_not_prove_itself_is_refused(scene: Scene) -> None:
    """The parent's object was swapped for another whole graph, sound in itself."""
    scene.commit()
    scene.commit()
    foot = scene.folder / scene.objects()[0]
    scene.rows[:] = scene.rows[::-1]
    other = Scene(scene.folder.parent / "other")
    other.rows[:] *= np.float32(-2) + np.arange(COUNT, dtype=np.float32)[:, None]
    other.graph = KnnGraph(SETTINGS).fit(np.arange(COUNT), other.rows)
    other.commit()
    foot.chmod(0o644)
    foot.write_bytes((other.folder / other.objects()[0]).read_bytes())
    with pytest.raises(DamagedObjectError):
        load_graph(scene.repository, scene.versions[1].version, "items")
