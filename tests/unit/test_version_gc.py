"""`driftline gc`: what goes, what stays, and what --dry-run says."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from driftline.errors import ConfigError, StateError
from driftline.frames.events import RESTORE, Op, Origin, write_event
from driftline.log import Outgoing, open_log
from driftline.topics import ops
from driftline.versions import fsck, tags
from tests.support.version_commands import GROUP, Scene
from tests.support.versioning import read_contents

DAY = 86400.0


@pytest.fixture
def scene(tmp_path: Path) -> Scene:
    """Versions that are 40, 30, 20 and 0 days old, of one line."""
    scene = Scene(tmp_path / "data")
    for age in (40, 30, 20, 0):
        scene.age = age * DAY
        scene.live.upsert([1, 2, 3])
        scene.commit()
    return scene


@pytest.fixture
async def log(tmp_path: Path) -> str:
    """A log whose ops go back to V-R-1.1."""
    url = f"local://{tmp_path / 'data'}"
    op = Op(RESTORE, GROUP, 0, Origin(bytes(16), 0, 1), {"version": "V-R-1.1"})
    async with open_log(url) as opened:
        await opened.create_topic(ops(GROUP), 1)
        await opened.append(ops(GROUP), 0, [Outgoing(b"no frame"), Outgoing(write_event(op))])
    return url


def grow_older(scene: Scene, days: float) -> None:
    """Let every object be older by the clock of its store, which is the file system."""
    for path in (scene.data_dir / "versions").rglob("*"):
        if path.is_file():
            then = path.stat().st_mtime - days * DAY
            os.utime(path, (then, then))


def objects(scene: Scene) -> set[str]:
    return {info.key for info in scene.repository.store.list("")}


def test_dry_run_names_what_would_be_removed_and_removes_nothing(scene: Scene, log: str) -> None:
    before = objects(scene)
    lines = scene.lines("gc", "--dry-run", "--older-than", "10d", "--log-url", log)
    assert lines[:2] == ["V-R-1.0 would be removed", "V-R-1.2 would be removed"]
    assert objects(scene) == before
    assert scene.repository.listing().names() == [f"V-R-1.{minor}" for minor in range(4)]


def test_old_versions_go_unless_they_are_held_or_the_log_goes_back_to_them(scene: Scene, log: str) -> None:
    scene.run("tag", "set", "release", "V-R-1.0")
    shown = scene.json("gc", "--older-than", "10d", "--log-url", log)
    assert isinstance(shown, dict)
    assert shown["removed_versions"] == ["V-R-1.2"]
    assert scene.repository.listing().names() == ["V-R-1.0", "V-R-1.1", "V-R-1.3"]
    assert tags(scene.repository) == {"release": "V-R-1.0"}


def test_young_versions_stay(scene: Scene, log: str) -> None:
    shown = scene.json("gc", "--older-than", "25d", "--log-url", log)
    assert isinstance(shown, dict)
    assert shown["removed_versions"] == ["V-R-1.0"]


def test_versions_are_removed_only_where_the_log_can_be_asked(scene: Scene, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="nowhere"):
        scene.run("gc", "--older-than", "10d", "--log-url", f"local://{tmp_path / 'nowhere'}")
    assert len(scene.repository.listing().names()) == 4


def test_objects_go_with_the_second_run_a_grace_period_later(scene: Scene, log: str) -> None:
    before = objects(scene)
    scene.live.upsert([4])
    scene.commit()  # its owner map names what is still alive, and nothing before it
    scene.run("gc", "--older-than", "0s", "--log-url", log)
    for _ in range(3):  # a version, then what it needed, each found twice
        grow_older(scene, 2)
        scene.run("gc")

    gone = before - objects(scene)

    assert any(key.startswith("tables/") for key in gone)
    assert any(key.startswith("versions/V-R-1.0/m-") for key in gone)
    assert fsck(scene.repository) == []
    latest = scene.repository.manifest("V-R-1.4")
    assert read_contents(scene.repository, latest) == scene.live.contents()


def test_nothing_is_deleted_while_a_manifest_cannot_be_read(scene: Scene) -> None:
    grow_older(scene, 3)
    manifest = scene.data_dir / "versions" / GROUP / "versions" / "V-R-1.1" / "m-000000"
    manifest.write_bytes(manifest.read_bytes()[:-1])
    before = objects(scene)
    with pytest.raises(StateError, match=r"versions/V-R-1\.1/m-000000 cannot be read"):
        scene.run("gc")
    assert objects(scene) >= before
