"""The demo's stream from a repository: whole and in order of time, or the error names what is wrong."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from driftline.demo import sources
from driftline.demo.events import id_of
from driftline.errors import ConfigError, InputError

needs_git = pytest.mark.skipif(shutil.which("git") is None, reason="needs a git binary")


# --- git


class Repository:
    """A repository made commit by commit, without the user's own settings."""

    def __init__(self, path: Path) -> None:
        self.path = path
        path.mkdir()
        self.git("init", "-q", "-b", "main")

    def git(self, *arguments: str, when: int = 1_600_000_000, email: str = "ann@example.org") -> None:
        names = {f"GIT_{role}_{part}": value for role in ("AUTHOR", "COMMITTER") for part, value in (
            ("NAME", "x"), ("EMAIL", email), ("DATE", f"@{when} +0000"))}  # fmt: skip
        environment = {
            **os.environ,
            **names,
            "GIT_CONFIG_GLOBAL": os.devnull,
            "GIT_CONFIG_SYSTEM": os.devnull,
        }
        subprocess.run(
            ["git", "-C", str(self.path), *arguments], check=True, env=environment, capture_output=True
        )

    def commit(self, *files: str, when: int, email: str = "ann@example.org") -> None:
        for name in files:
            file = self.path / name
            file.parent.mkdir(parents=True, exist_ok=True)
            with file.open("a") as out:
                out.write(f"{when}\n")
        self.git("add", "-A", when=when, email=email)
        self.git("commit", "-q", "--allow-empty", "-m", "m", when=when, email=email)


@needs_git
def test_every_file_of_every_commit_is_an_event_oldest_first(tmp_path: Path) -> None:
    repository = Repository(tmp_path / "r")
    repository.commit("a", "d/b", when=100)
    repository.commit(when=150)
    repository.commit("a", when=200, email="bob@example.org")

    events = sources.git(repository.path)

    assert events.timestamps.tolist() == [100, 100, 200]
    assert events.users.tolist() == [id_of("ann@example.org")] * 2 + [id_of("bob@example.org")]
    assert events.items.tolist() == [id_of("a"), id_of("d/b"), id_of("a")]


@needs_git
def test_any_file_name_is_one_item(tmp_path: Path) -> None:
    names = ["two\nlines", "\nfirst", "späce and é", '"quoted"']
    repository = Repository(tmp_path / "r")
    repository.commit(*names, when=100)

    assert sorted(sources.git(repository.path).items.tolist()) == sorted(id_of(name) for name in names)


@needs_git
def test_a_renamed_file_is_a_new_item(tmp_path: Path) -> None:
    repository = Repository(tmp_path / "r")
    repository.commit("old", when=100)
    repository.git("mv", "old", "new")
    repository.commit(when=200)

    assert set(sources.git(repository.path)[1:].items.tolist()) == {id_of("old"), id_of("new")}


@needs_git
def test_merges_are_left_out(tmp_path: Path) -> None:
    repository = Repository(tmp_path / "r")
    repository.commit("a", when=100)
    repository.git("checkout", "-q", "-b", "side")
    repository.commit("b", when=200)
    repository.git("checkout", "-q", "main")
    repository.commit("c", when=300)
    repository.git("merge", "-q", "--no-ff", "-m", "merge", "side", when=400)

    assert sources.git(repository.path).timestamps.tolist() == [100, 200, 300]


@needs_git
def test_a_limit_ends_the_history_early(tmp_path: Path) -> None:
    repository = Repository(tmp_path / "r")
    for when in range(100, 105):
        repository.commit("a", when=when)

    assert sources.git(repository.path, limit=2).timestamps.tolist() == [100, 101]


@needs_git
def test_commits_whose_clock_went_back_are_sorted(tmp_path: Path) -> None:
    repository = Repository(tmp_path / "r")
    repository.commit("a", when=200)
    repository.commit("b", when=100)

    assert sources.git(repository.path).items.tolist() == [id_of("b"), id_of("a")]


@needs_git
def test_a_directory_without_repository_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="not a git repository"):
        sources.git(tmp_path)


@needs_git
def test_a_repository_without_commits_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no commits yet"):
        sources.git(Repository(tmp_path / "r").path)


@needs_git
def test_a_history_without_files_is_refused(tmp_path: Path) -> None:
    repository = Repository(tmp_path / "r")
    repository.commit(when=100)

    with pytest.raises(InputError, match="no commit edits a file"):
        sources.git(repository.path)


def test_a_path_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="nowhere: no such directory"):
        sources.git(tmp_path / "nowhere")


def test_without_a_git_binary_the_error_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ConfigError, match="no git binary on PATH"):
        sources.git(tmp_path)
