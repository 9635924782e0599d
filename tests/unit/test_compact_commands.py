"""`driftline compact`, `driftline du`, `driftline merge`: on a store in a directory."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest

from driftline.errors import InputError, VersionHeldError
from driftline.frames.events import RESTORE, Op, Origin, write_event
from driftline.log import Outgoing, open_log
from driftline.topics import ops
from driftline.versions import fsck
from tests.support.version_commands import GROUP, Scene
from tests.support.versioning import Live, read_contents

DAY = 86400.0


@pytest.fixture
def scene(tmp_path: Path) -> Scene:
    """Versions that are 40, 30, 20 and 0 days old, of one line."""
    scene = Scene(tmp_path / "data")
    for age, ids in ((40, range(20)), (30, range(20)), (20, range(18)), (0, range(16))):
        scene.age = age * DAY
        scene.live.upsert(ids)
        scene.commit()
    return scene


@pytest.fixture
async def log(tmp_path: Path) -> str:
    """A log whose ops go back to V-R-1.1."""
    url = f"local://{tmp_path / 'data'}"
    op = Op(RESTORE, GROUP, 0, Origin(bytes(16), 0, 1), {"version": "V-R-1.1"})
    async with open_log(url) as opened:
        await opened.create_topic(ops(GROUP), 1)
        await opened.append(ops(GROUP), 0, [Outgoing(write_event(op))])
    return url


def test_versions_of_an_age_become_smaller_unless_the_log_goes_back_to_them(scene: Scene, log: str) -> None:
    shown = scene.json("compact", "--tier", "int8", "--older-than", "10d", "--log-url", log)
    assert isinstance(shown, dict)

    assert shown["tiers"] == {"V-R-1.0": "int8", "V-R-1.2": "int8"}
    assert all(error > 0 for error in shown["errors"].values())
    assert [scene.repository.manifest(f"V-R-1.{minor}").retention for minor in range(4)] == [
        *("int8", "exact", "int8", "exact")
    ]
    assert fsck(scene.repository) == []
    assert read_contents(scene.repository, scene.versions[3]) == scene.live.contents()


def test_compact_says_what_it_did_and_then_has_nothing_to_do(scene: Scene, log: str) -> None:
    words = ("compact", "V-R-1.0", "--tier", "int16", "--log-url", log)
    lines = scene.lines(*words)

    assert lines[0].startswith("V-R-1.0 stored in tier int16, up to ")
    assert "segments" in lines[1]
    assert lines[2] == "two runs of `driftline gc`, 24 h apart, free what was replaced"
    assert scene.lines(*words) == ["nothing to do"]


def test_a_dry_run_of_compact_changes_nothing(scene: Scene, log: str) -> None:
    before = {info.key for info in scene.repository.store.list("versions")}
    words = ("compact", "--tier", "int8", "--older-than", "10d", "--dry-run", "--log-url", log)
    lines = scene.lines(*words)

    assert lines[:2] == [f"V-R-1.{minor} would be stored in tier int8" for minor in (0, 2)]
    assert {info.key for info in scene.repository.store.list("versions")} == before


def test_a_named_version_that_is_held_is_refused(scene: Scene, log: str) -> None:
    with pytest.raises(VersionHeldError, match=r"V-R-1\.1 stays exact: it is held by the log"):
        scene.run("compact", "V-R-1.1", "--tier", "int8", "--log-url", log)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("V-R-1.0",), "add --tier"),
        (("--older-than", "3d"), "add --tier"),
        (("--tier", "int8"), "of which versions"),
        (("--tier", "int4", "V-R-1.0"), "tier 'int4': one of exact, int16, int8"),
    ],
)
def test_a_tier_goes_with_the_versions_it_is_for(
    scene: Scene, log: str, words: tuple[str, ...], said: str
) -> None:
    with pytest.raises(InputError, match=said):
        scene.run("compact", *words, "--log-url", log)


def test_du_shows_own_and_shared_bytes_by_version_branch_and_tier(scene: Scene, log: str) -> None:
    scene.run("compact", "V-R-1.0", "--tier", "int8", "--log-url", log)
    shown = scene.json("du")
    assert isinstance(shown, dict)
    stored = {info.key: info.size for info in scene.repository.store.list("")}
    first, second, *_, last = shown["versions"]

    assert shown["total"] == sum(stored.values())
    assert (first["retention"], first["error"] > 0, second["error"]) == ("int8", True, 0.0)
    assert last["own"] == last["grown"] > 0
    assert {each["branch"]: each["versions"] for each in shown["branches"]} == {"main": 4}
    assert {each["tier"] for each in shown["tiers"]} == {"exact", "int8"}
    assert sum(shown["kinds"].values()) + shown["manifests"] + shown["unreferenced"] <= shown["total"]
    lines = scene.lines("du")
    assert lines[0].split() == ["version", "branch", *lines[0].split()[2:]]
    assert any(line.startswith("int8") for line in lines)


def test_what_du_calls_own_is_what_removing_the_version_frees(scene: Scene, log: str) -> None:
    shown = scene.json("du")
    assert isinstance(shown, dict)
    mine = set(scene.repository.manifest("V-R-1.2").objects())
    others = [scene.repository.manifest(f"V-R-1.{minor}").objects() for minor in (0, 1, 3)]
    alone = mine - {key for each in others for key in each}

    sizes = scene.repository.manifest("V-R-1.2").objects()
    assert shown["versions"][2]["own"] == sum(sizes[key] for key in alone)
    assert shown["versions"][2]["shared"] == sum(sizes[key] for key in mine - alone)


def forked(scene: Scene) -> None:
    """Begin branch exp at the last version, and change rows in both lines."""
    scene.run("branch", "create", "exp", "V-R-1.3")
    other = Live()
    other.shards = copy.deepcopy(scene.live.shards)
    fork = scene.versions[-1]
    scene.live.upsert([1, 2])
    scene.commit()
    other.upsert([2, 3, 99])
    other.upsert([2])
    other.commit(scene.repository, "op-exp", fork, branch="exp", scenario="W")


def test_merge_lists_conflicts_and_makes_a_version_with_two_parents(scene: Scene) -> None:
    forked(scene)
    planned = scene.json("merge", "exp", "--dry-run")
    assert isinstance(planned, dict)
    assert (planned["version"], planned["ancestor"]) == (None, "V-R-1.3")
    assert planned["tables"]["items"]["conflicting"]["changed"] == [2]
    assert (planned["tables"]["items"]["taken"], planned["tables"]["items"]["conflicts"]) == (2, 1)

    lines = scene.lines("merge", "exp", "--resolve", "mean")
    assert lines == [
        "V-W-1.0 into V-R-1.4, since V-R-1.3",
        "table  taken  removed  conflicts",
        "items  2      0        1",
        "",
        "table  id  conflict",
        "items  2   changed in both",
        "V-R-1.5 on main; `driftline checkout main` goes on from it",
    ]
    assert scene.repository.manifest("V-R-1.5").parents == ("V-R-1.4", "V-W-1.0")
    assert "merge of V-W-1.0" in scene.lines("log")[0]
    assert scene.lines("merge", "exp") == ["V-R-1.5 has all of V-W-1.0: nothing to merge"]
    assert fsck(scene.repository) == []


def test_merge_takes_a_group_not_a_table(scene: Scene) -> None:
    forked(scene)
    with pytest.raises(InputError, match="name no table"):
        scene.run("merge", "items@exp")


def test_diff_compares_the_heads_of_two_lines(scene: Scene) -> None:
    forked(scene)
    shown = scene.json("diff", "main", "exp", "--rows")
    assert isinstance(shown, dict)
    found = shown["tables"]["items"]

    assert sorted(each["id"] for each in found["rows"]) == [1, 2, 3]
    assert (found["added_ids"], found["removed_ids"]) == ([99], [])
