"""`driftline diff --neighbours`, on versions in a store."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from driftline.drift.measures import NODE_MEASURES
from driftline.errors import InputError
from driftline.graph import GraphSettings, KnnGraph, MethodName, Metric, snapshot_of
from driftline.versions import Manifest, TableReader, store_graph
from tests.support.version_commands import Scene

ROWS = 60


@pytest.fixture
def scene(tmp_path: Path) -> Scene:
    """Two versions: five rows moved, one ended, one was born."""
    scene = Scene(tmp_path / "data")
    scene.live.upsert(range(ROWS))
    scene.commit()
    scene.live.upsert([3, 8, 20, 31, 44])
    scene.live.delete([50])
    scene.live.upsert([77])
    scene.commit()
    return scene


def rows_of(scene: Scene, version: Manifest) -> tuple[np.ndarray, np.ndarray]:
    reader = TableReader(scene.repository.cache, version, "items")
    blocks = [block for shard in range(reader.shards) for block in reader.blocks(shard)]
    ids, rows = np.concatenate([b.ids for b in blocks]), np.concatenate([b.rows for b in blocks])
    return ids[np.argsort(ids)], rows[np.argsort(ids)]


def exact(scene: Scene, version: Manifest, k: int = 4) -> KnnGraph:
    settings = GraphSettings(neighbours=k, metric=Metric.L2, method=MethodName.EXACT)
    return KnnGraph(settings).fit(*rows_of(scene, version))


def lists(graph: KnnGraph) -> dict[int, set[int]]:
    return {
        int(each): set(near) for each, near in zip(graph.ids, graph.kneighbours().ids.tolist(), strict=True)
    }


def shown(scene: Scene, *words: str) -> dict[str, object]:
    found = scene.json("diff", "V-R-1.0", "V-R-1.1", "--neighbours", "--rows", *words)
    assert isinstance(found, dict)
    items: dict[str, object] = found["tables"]["items"]
    return items


def test_every_node_in_both_is_measured_and_ranked_by_its_neighbourhood(scene: Scene) -> None:
    found = shown(scene, "--metric", "l2", "-k", "4")
    old, new = (lists(exact(scene, each)) for each in scene.versions)
    ranked = found["ranked"]
    assert isinstance(ranked, list)
    assert {row["id"] for row in ranked} == old.keys() & new.keys()
    for row in ranked:
        before, after = old[row["id"]], new[row["id"]]
        assert row["change_quantity"] == len(after - before)
        assert row["jaccard"] == pytest.approx(len(before & after) / len(before | after))
        assert set(row) == {"id", "moved", *(measure.name for measure in NODE_MEASURES)}
    assert [row["jaccard"] for row in ranked] == sorted(row["jaccard"] for row in ranked)
    assert {row["id"] for row in ranked if row["moved"]} == {3, 8, 20, 31, 44}
    assert (found["nodes"], found["moved"], found["added"], found["removed"]) == (ROWS - 1, 5, 1, 1)


def test_stored_graphs_are_used_and_say_what_made_ones_say(scene: Scene) -> None:
    made = shown(scene, "--metric", "l2", "-k", "4")
    for version in scene.versions:
        store_graph(scene.repository, version.version, "items", snapshot_of(exact(scene, version)))
    stored = shown(scene)
    assert (made.pop("graphs"), stored.pop("graphs")) == ("made", "stored")
    assert stored == made
    other = shown(scene, "-k", "3")  # another K than the stored one: made
    assert (other["graphs"], other["k"], other["metric"]) == ("made", 3, "l2")


def test_a_version_compared_with_itself_has_no_change(scene: Scene) -> None:
    found = scene.json("diff", "latest", "latest", "--neighbours", "--rows")
    assert isinstance(found, dict)
    assert {row["jaccard"] for row in found["tables"]["items"]["ranked"]} == {1.0}


def test_the_table_names_the_least_alike_nodes_first(scene: Scene) -> None:
    told = scene.lines("diff", "V-R-1.0", "--neighbours", "--metric", "l2", "--top", "2")
    assert told[0] == "V-R-1.0 -> V-R-1.1"
    assert told[1].startswith("items: 59 nodes in both, 5 moved, 1 added, 1 removed; 10 neighbours by l2")
    header = next(at for at, line in enumerate(told) if line.startswith("id "))
    assert told[header].split()[:3] == ["id", "moved", "jaccard"]
    assert len(told) == header + 3


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--neighbours", "--metric", "manhattan"], "cosine, l2, inner_product"),
        (["--k", "3"], "give --neighbours"),
    ],
)
def test_options_that_make_no_sense_are_refused(scene: Scene, words: list[str], said: str) -> None:
    with pytest.raises(InputError, match=said):
        scene.run("diff", "V-R-1.0", "latest", *words)
