"""The commands that look at versions and label them, on a store in a directory."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

from driftline.errors import ConfigError, InputError, UnknownTableError, UnknownVersionError, VersionHeldError
from driftline.versions import TableReader, pins, retire
from tests.support.version_commands import GROUP, Scene


@pytest.fixture
def scene(tmp_path: Path) -> Scene:
    return Scene(tmp_path / "data")


@pytest.fixture
def em10(scene: Scene) -> Scene:
    """The worked example: V1 writes u1 to u5, V2 changes u1, u2, u3, V3 changes u2."""
    for ids in ([1, 2, 3, 4, 5], [1, 2, 3], [2]):
        scene.live.upsert(ids)
        scene.commit()
    return scene


# -- log -----------------------------------------------------------------------------------------


def test_log_shows_nine_rows_stored_for_fifteen_visible(em10: Scene) -> None:
    shown = em10.json("log")
    assert isinstance(shown, list)
    assert [(each["version"], each["rows"], each["changed"]) for each in shown] == [
        ("V-R-1.2", 5, 1),
        ("V-R-1.1", 5, 3),
        ("V-R-1.0", 5, 5),
    ]
    assert sum(each["changed"] for each in shown) == 9
    assert sum(each["rows"] for each in shown) == 15


def test_log_is_a_graph_with_labels_times_and_sizes(em10: Scene) -> None:
    em10.run("tag", "set", "release-1", "V-R-1.1")
    em10.run("branch", "create", "exp", "V-R-1.1")
    em10.live.upsert([4])
    em10.commit(parent=em10.versions[1], base=em10.versions[1], branch="exp", new_run=True)

    lines = em10.lines("log")

    told = [
        re.sub(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", "TIME", re.sub(r", [\d.]+ k?B", "", line))
        for line in lines
    ]
    assert told == [
        "* V-R-2.0  (exp)  TIME  5 rows, 1 changed",
        "| * V-R-1.2  (main)  TIME  5 rows, 1 changed",
        "|/",
        "* V-R-1.1  (tag: release-1)  TIME  5 rows, 3 changed",
        "* V-R-1.0  TIME  5 rows, 5 changed",
    ]


def test_log_of_a_reference_is_what_it_goes_back_to(em10: Scene) -> None:
    assert [line.split()[1] for line in em10.lines("log", "latest~1")] == ["V-R-1.1", "V-R-1.0"]
    assert [line.split()[1] for line in em10.lines("log", "-n", "1")] == ["V-R-1.2"]


def test_names_follow_lineage_and_scenario(scene: Scene) -> None:
    scene.live.upsert([1])
    scene.commit(scenario="R")
    for scenario, branch in (("W", "web"), ("N", "news")):
        scene.run("branch", "create", branch, scene.versions[-1].version)
        scene.live.upsert([1])
        scene.commit(scenario=scenario, branch=branch)

    shown = scene.json("log")

    assert isinstance(shown, list)
    assert [(each["version"], each["parents"], each["branch"]) for each in shown] == [
        ("V-N-2.0", ["V-W-1.0"], "news"),
        ("V-W-1.0", ["V-R-1.0"], "web"),
        ("V-R-1.0", [], "main"),
    ]


def test_log_marks_a_rollback(em10: Scene) -> None:
    target = em10.versions[0]
    em10.live.forget_changes()
    em10.commit(base=target)
    assert em10.lines("log")[0].endswith("rollback to V-R-1.0")
    assert '  "V-R-1.3" -> "V-R-1.0" [style=dashed, label=rollback];' in em10.lines("log", "--dot")


# -- show, diff ----------------------------------------------------------------------------------


def test_show_tells_lineage_metadata_figures_and_where_shards_stood(scene: Scene) -> None:
    scene.live.upsert([1, 2, 3])
    scene.commit(scenario="W", metadata={"model": "two-tower"}, figures={"auc": 0.75})
    lines = scene.lines("show", "items@V-W-1.0")
    assert lines[0] == "version    V-W-1.0  (main)"
    assert "scenario   W" in lines
    assert "metadata   model: two-tower" in lines
    assert "figure     auc: 0.75" in lines
    assert any(line.startswith("items  3    0") for line in lines)
    shown = scene.json("show")
    assert isinstance(shown, dict)
    assert shown["tables"]["items"] == {"rows": 3, "changed": 3, "dim": 3, "shards": 2}
    assert sum(shard["rows"] for shard in shown["shards"]["items"]) == 3


def test_diff_tells_what_changed_and_how_far_rows_moved(em10: Scene) -> None:
    em10.live.delete([5])
    em10.live.upsert([9])
    em10.commit()
    shown = em10.json("diff", "V-R-1.0", "latest", "--rows")
    assert isinstance(shown, dict)
    items = shown["tables"]["items"]
    assert (items["changed"], items["added_ids"], items["removed_ids"]) == (3, [9], [5])
    before, after = (em10.repository.manifest(f"V-R-1.{minor}") for minor in (0, 3))
    ids = np.array([row["id"] for row in items["rows"]], np.uint64)
    moved = [
        TableReader(em10.repository.cache, each, "items").rows(ids).rows.rows for each in (before, after)
    ]
    expected = np.linalg.norm((moved[1] - moved[0]).astype(np.float64), axis=1)
    np.testing.assert_allclose([row["distance"] for row in items["rows"]], expected, rtol=1e-6)
    assert (np.diff(expected) <= 0).all()
    assert items["distance"]["max"] == pytest.approx(expected.max())


def test_diff_names_the_rows_that_moved_farthest(em10: Scene) -> None:
    lines = em10.lines("diff", "V-R-1.0", "--top", "2")
    assert lines[0] == "V-R-1.0 -> V-R-1.2"
    assert lines[1].split() == ["table", "changed", "added", "removed", "mean", "median", "max"]
    assert len([line for line in lines if " changed  " in line and line.startswith("items")]) == 2
    assert len(em10.lines("diff", "V-R-1.0", "--top", "0")) == 3


def test_diff_of_different_tables_is_refused(tmp_path: Path) -> None:
    scene = Scene(tmp_path, ("items", "users"))
    scene.live.upsert([1])
    scene.commit()
    with pytest.raises(InputError, match="compare a table with itself"):
        scene.run("diff", "items@latest", "users@latest")


# -- blame, explain ------------------------------------------------------------------------------


def test_blame_names_the_versions_that_changed_a_row(em10: Scene) -> None:
    assert [line.split()[0::2][:2] for line in em10.lines("blame", "2")] == [
        ["V-R-1.2", "changed"],
        ["V-R-1.1", "changed"],
        ["V-R-1.0", "born"],
    ]
    assert [line.split()[0] for line in em10.lines("blame", "4", "latest~1")] == ["V-R-1.0"]
    assert "no row 77" in em10.lines("blame", "77")[0]


def test_explain_names_segment_version_and_stretch_of_the_log(em10: Scene) -> None:
    shown = em10.json("explain", "1", "latest")
    assert isinstance(shown, dict)
    assert (shown["version"], shown["written_by"]) == ("V-R-1.2", "V-R-1.1")
    first, end = shown["log_range"]
    assert first <= shown["offset"] < end
    assert shown["segment"] in {info.key for info in em10.repository.store.list("tables")}
    assert any(line.startswith("stored by  V-R-1.1") for line in em10.lines("explain", "1", "items@latest"))


def test_a_row_needs_its_table_where_there_are_several(tmp_path: Path) -> None:
    scene = Scene(tmp_path, ("items", "users"))
    scene.live.upsert([1], "users")
    scene.commit()
    with pytest.raises(InputError, match="items, users"):
        scene.run("explain", "1", "latest")
    assert scene.lines("explain", "1", "users@latest") == scene.lines(
        "explain", "1", "latest", "--table", "users"
    )
    with pytest.raises(UnknownTableError):
        scene.run("explain", "1", "songs@latest")
    with pytest.raises(InputError, match="no row 5"):
        scene.run("explain", "5", "users@latest")


@pytest.mark.parametrize("row", ["-1", str(2**64), "x"])
def test_an_id_out_of_range_is_refused(em10: Scene, row: str) -> None:
    with pytest.raises(InputError, match="whole number"):
        em10.run("blame", row)


# -- labels --------------------------------------------------------------------------------------


def test_a_tag_moves_only_when_told_to(em10: Scene) -> None:
    assert em10.lines("tag", "set", "best", "latest~1") == ["tag best points to V-R-1.1"]
    with pytest.raises(VersionHeldError, match="--move"):
        em10.run("tag", "set", "best")
    assert em10.lines("tag", "set", "best", "--move") == ["tag best points to V-R-1.2, no longer to V-R-1.1"]
    assert em10.json("tag", "ls") == {"best": "V-R-1.2"}
    assert em10.lines("tag", "rm", "best") == ["tag best removed; it pointed to V-R-1.2"]
    assert em10.lines("tag", "ls") == []


def test_a_branch_is_made_listed_and_removed(em10: Scene) -> None:
    assert em10.lines("branch", "create", "exp", "latest~2") == ["branch exp begins at V-R-1.0"]
    assert em10.lines("branch", "ls") == ["main  V-R-1.2", "exp   V-R-1.0"]
    assert em10.lines("branch", "rm", "exp") == ["branch exp removed; it was at V-R-1.0"]
    assert em10.json("branch", "ls") == {"main": "V-R-1.2"}


def test_a_pin_holds_a_version_until_it_runs_out_or_is_given_up(em10: Scene) -> None:
    assert em10.lines("pin", "V-R-1.0", "--team", "ads", "--for", "2d")[0].startswith(
        "V-R-1.0 is kept for ads until 2"
    )
    (held,) = pins(em10.repository)
    assert held.until - em10.repository.now() == pytest.approx(2 * 86400, abs=60)
    with pytest.raises(VersionHeldError, match="pin of ads"):
        retire(em10.repository, ["V-R-1.0"])
    assert [line.split()[:2] for line in em10.lines("pins")] == [["ads", "V-R-1.0"]]
    em10.run("unpin", "V-R-1.0", "--team", "ads")
    assert em10.json("pins") == []


# -- references ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "words",
    [
        ("show", "V-R-1.9"),
        ("diff", "V-R-1.9"),
        ("log", "V-R-1.9"),
        ("blame", "1", "V-R-1.9"),
        ("explain", "1", "V-R-1.9"),
        ("tag", "set", "x", "V-R-1.9"),
        ("branch", "create", "x", "V-R-1.9"),
        ("pin", "V-R-1.9", "--team", "t"),
    ],
    ids=lambda words: words[0],
)
def test_an_unknown_reference_is_answered_with_the_nearest_names(em10: Scene, words: tuple[str, ...]) -> None:
    with pytest.raises(UnknownVersionError, match="nearest: V-R-1"):
        em10.run(*words)


@pytest.mark.parametrize(
    ("ref", "version"),
    [
        ("latest", "V-R-1.2"),
        ("main", "V-R-1.2"),
        ("latest~", "V-R-1.1"),
        ("items@main~2", "V-R-1.0"),
        ("items@V-R-1.1", "V-R-1.1"),
        ("2999-01-01", "V-R-1.2"),
    ],
)
def test_every_form_of_reference_is_understood(em10: Scene, ref: str, version: str) -> None:
    shown = em10.json("show", ref)
    assert isinstance(shown, dict)
    assert shown["version"] == version


@pytest.mark.parametrize(
    "words",
    [
        "log",
        "show",
        "diff a",
        "branch ls",
        "tag ls",
        "pins",
        "blame 1",
        "fsck",
        "gc",
        "tag set x",
        "branch rm x",
    ],
)
def test_where_there_are_no_versions_that_is_said_and_nothing_is_made(tmp_path: Path, words: str) -> None:
    scene = Scene(tmp_path / "data")
    with pytest.raises(ConfigError, match="holds no versions"):
        scene.run(*words.split())
    assert list(tmp_path.iterdir()) == []


def test_looking_makes_nothing(em10: Scene) -> None:
    before = sorted(em10.data_dir.rglob("*"))
    for words in (
        ("log",),
        ("show",),
        ("diff", "latest~1"),
        ("branch", "ls"),
        ("blame", "1"),
        ("fsck",),
        ("pins",),
    ):
        em10.run(*words)
    assert sorted(em10.data_dir.rglob("*")) == before
    assert not (em10.data_dir / "key").exists()


# -- fsck ----------------------------------------------------------------------------------------


def test_fsck_of_a_sound_store(em10: Scene) -> None:
    assert em10.lines("fsck") == ["3 versions, all is well"]


def test_fsck_names_the_damaged_object_and_what_was_expected(em10: Scene) -> None:
    folder = em10.data_dir / "versions" / GROUP
    segment = next((folder / "tables" / "items" / "seg").rglob("op-1-*"))
    data = bytearray(segment.read_bytes())
    data[-20] ^= 1
    segment.write_bytes(data)

    done = em10.run("fsck")

    assert done.exit_code == 1
    assert done.stdout.startswith(f"damaged: {segment.relative_to(folder)}: ")
    assert "expected" in done.stdout
    assert "found" in done.stdout
    again = em10.run("fsck", "--json")
    assert again.exit_code == 1
    assert f'"object": "{segment.relative_to(folder)}"' in again.stdout
