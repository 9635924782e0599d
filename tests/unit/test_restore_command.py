"""`checkout` and `rollback`: what they refuse before anything is asked for, and where training goes on."""

from __future__ import annotations

from pathlib import Path

import pytest

from driftline.cli.restore_command import begin_branch, branch_of, parse_ids, resolved
from driftline.config import load_settings
from driftline.config.settings import Settings
from driftline.errors import ConfigError, InputError, UnknownVersionError, VersionHeldError
from driftline.log import open_log
from driftline.versions import branches
from tests.support.version_commands import Scene


@pytest.fixture
def scene(tmp_path: Path) -> Scene:
    """Three versions of main; branch exp begins at the second and has one of its own."""
    scene = Scene(tmp_path)
    for _ in range(3):
        scene.live.upsert([1, 2])
        scene.commit()
    scene.run("branch", "create", "exp", "V-R-1.1")
    scene.commit(parent=scene.versions[1], base=scene.versions[1], branch="exp")
    scene.run("tag", "set", "good", "V-R-1.0")
    return scene


@pytest.fixture
async def log(tmp_path: Path) -> str:
    url = f"local://{tmp_path / 'log'}"
    async with open_log(url) as opened:
        await opened.create_topic("default.ops", 1)
    return url


def settings_for(scene: Scene) -> Settings:
    return load_settings({"data_dir": scene.data_dir}, cwd=scene.data_dir, environ={}).settings


@pytest.mark.parametrize(
    ("ref", "branch"),
    [
        ("exp", "exp"),
        ("exp~1", "exp"),
        ("main", "main"),
        ("latest", "main"),
        ("V-R-1.3", "exp"),
        ("V-R-1.0", "main"),
        ("good", "main"),
        ("items@exp", "exp"),
    ],
)
def test_training_goes_on_in_the_branch_that_was_named_or_the_versions_own(
    scene: Scene, ref: str, branch: str
) -> None:
    settings = settings_for(scene)
    assert branch_of(settings, resolved(settings, ref)) == branch


def test_a_new_branch_begins_at_the_version(scene: Scene) -> None:
    begin_branch(settings_for(scene), "trial", "V-R-1.0")
    assert branches(scene.repository)["trial"] == "V-R-1.0"
    begin_branch(settings_for(scene), "trial", "V-R-1.0")  # again: it is there


def test_a_branch_that_is_elsewhere_is_not_moved(scene: Scene) -> None:
    with pytest.raises(VersionHeldError, match=r"branch exp is at V-R-1\.3, not at V-R-1\.0"):
        begin_branch(settings_for(scene), "exp", "V-R-1.0")


@pytest.mark.parametrize(("text", "ids"), [("3,1,2", [1, 2, 3]), ("7", [7]), ("1, 1,2", [1, 2])])
def test_ids_are_listed_with_commas(text: str, ids: list[int]) -> None:
    assert parse_ids(text) == ids


@pytest.mark.parametrize("text", ["", ",", "a", "-1", str(2**64)])
def test_what_is_no_id_is_refused(text: str) -> None:
    with pytest.raises(InputError):
        parse_ids(text)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("rollback --to backup-17", "say which with --ids"),
        ("rollback --to items@good", "go back together"),
        ("rollback --to good --table items", "go back together"),
        ("rollback --ids 1 --to backup-17", "name the table"),
        ("rollback --ids x --to good", "whole number"),
        ("rollback --to goof", "nearest: good"),
        ("rollback --ids 1 --to goof", "nearest: good"),
        ("checkout goof", "nearest: good"),
        ("checkout good --branch exp", "branch exp is at"),
    ],
)
def test_what_cannot_be_meant_is_refused_before_anything_happens(
    scene: Scene, log: str, words: str, message: str
) -> None:
    with pytest.raises((InputError, UnknownVersionError), match=message):
        scene.run(*words.split(), "--log-url", log)


@pytest.mark.parametrize("words", ["rollback --to good", "checkout good"])
def test_where_there_is_no_log_none_is_made(scene: Scene, tmp_path: Path, words: str) -> None:
    with pytest.raises(ConfigError, match="nowhere"):
        scene.run(*words.split(), "--log-url", f"local://{tmp_path / 'nowhere'}")
    assert not (tmp_path / "nowhere").exists()
