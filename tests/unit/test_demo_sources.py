"""Events come whole and in order of time, or the error names the file, the line and the way out."""

from __future__ import annotations

import gzip
import os
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from driftline.demo import sources
from driftline.demo.events import Events, id_of
from driftline.errors import ConfigError, InputError

needs_git = pytest.mark.skipif(shutil.which("git") is None, reason="needs a git binary")


def write(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


# --- csv


def test_a_header_row_names_the_columns_in_any_order(tmp_path: Path) -> None:
    events = sources.csv(write(tmp_path / "e.csv", "item_id,note,timestamp,user\n7,x,100,3\n8,y,101,4\n"))

    assert events.timestamps.tolist() == [100, 101]
    assert events.users.tolist() == [3, 4]
    assert events.items.tolist() == [7, 8]


def test_without_a_header_the_first_three_columns_count(tmp_path: Path) -> None:
    events = sources.csv(write(tmp_path / "e.csv", "100,3,7,ignored\n101,4,8,ignored\n"))

    assert (events.timestamps.tolist(), events.users.tolist(), events.items.tolist()) == (
        [100, 101],
        [3, 4],
        [7, 8],
    )


def test_gzip_is_told_by_its_magic_not_by_the_name(tmp_path: Path) -> None:
    path = tmp_path / "events.csv"
    path.write_bytes(gzip.compress(b"timestamp,user,item\n1,2,3\n"))

    assert len(sources.csv(path)) == 1


def test_canonical_numbers_are_their_own_ids_and_anything_else_is_hashed(tmp_path: Path) -> None:
    events = sources.csv(write(tmp_path / "e.csv", f"1,ann,{2**64 - 1}\n2,007,{2**64}\n3,7,-1\n"))

    assert events.users.tolist() == [id_of("ann"), id_of("007"), 7]
    assert events.items.tolist() == [2**64 - 1, id_of(str(2**64)), id_of("-1")]


def test_unsorted_rows_are_sorted_by_time_and_ties_keep_their_order(tmp_path: Path) -> None:
    events = sources.csv(write(tmp_path / "e.csv", "5,1,1\n3,1,2\n5,1,3\n3,1,4\n"))

    assert events.timestamps.tolist() == [3, 3, 5, 5]
    assert events.items.tolist() == [2, 4, 1, 3]


def test_a_limit_takes_the_first_rows(tmp_path: Path) -> None:
    assert sources.csv(write(tmp_path / "e.csv", "1,1,1\n2,2,2\n3,3,3\n"), limit=2).items.tolist() == [1, 2]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("timestamp,user,item\n1,2,3\n\n1,2\n", r"e\.csv, line 4: 2 columns"),
        ("1,2,3\nsoon,2,3\n", r"e\.csv, line 2: timestamp 'soon'"),
        ("1.5,2,3\n", r"e\.csv, line 1: timestamp '1\.5'"),
        (f"{2**63},2,3\n", r"e\.csv, line 1: timestamp"),
        ("1,,3\n", r"e\.csv, line 1: empty user"),
        ("1,2, \n", r"e\.csv, line 1: empty item"),
        ('1,2,3\n1,2,"open\n', r"e\.csv, line 2: "),
        ("timestamp,user,thing\n1,2,3\n", r"e\.csv, line 1: no column item or item_id"),
        ("", r"e\.csv: no events"),
        ("timestamp,user,item\n", r"e\.csv: no events"),
    ],
)
def test_a_malformed_file_is_refused_by_name_and_line(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        sources.csv(write(tmp_path / "e.csv", text))


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"none\.csv: No such file"):
        sources.csv(tmp_path / "none.csv")


def test_a_gzip_file_cut_short_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "e.csv.gz"
    path.write_bytes(gzip.compress(b"1,2,3\n" * 1000)[:-10])

    with pytest.raises(InputError, match="broken gzip file"):
        sources.csv(path)


def test_bytes_that_are_not_utf8_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "e.csv"
    path.write_bytes(b"1,\xff\xfe,3\n")

    with pytest.raises(InputError, match="not UTF-8"):
        sources.csv(path)


@given(
    st.lists(
        st.tuples(st.integers(0, 2**40), st.integers(0, 2**64 - 1), st.integers(0, 2**64 - 1)), min_size=1
    )
)
def test_what_is_written_is_read_back_in_stable_order_of_time(
    tmp_path_factory: pytest.TempPathFactory, rows: list[tuple[int, int, int]]
) -> None:
    path = tmp_path_factory.mktemp("csv") / "e.csv"
    events = sources.csv(write(path, "".join(f"{t},{u},{i}\n" for t, u, i in rows)))

    read = list(zip(events.timestamps.tolist(), events.users.tolist(), events.items.tolist(), strict=True))
    assert read == sorted(rows, key=lambda row: row[0])


# --- events


def test_the_id_of_a_name_is_part_of_the_format() -> None:
    assert id_of("README.md") == 0x91D03C47F82D0F76
    assert id_of("") == 0xB4B2797457A0A6E4


def test_events_that_go_back_in_time_are_refused() -> None:
    ids = np.zeros(2, np.uint64)
    with pytest.raises(InputError, match="go back"):
        Events(np.array([2, 1]), ids, ids)


def test_columns_of_different_length_are_refused() -> None:
    with pytest.raises(InputError, match="one length"):
        Events(np.array([1]), np.zeros(2, np.uint64), np.zeros(1, np.uint64))


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


# --- synthetic


def test_a_seed_fixes_every_event() -> None:
    one, two, other = (sources.synthetic(2_000, seed) for seed in (1, 1, 2))

    assert np.array_equal(one.events.users, two.events.users)
    assert np.array_equal(one.events.items, two.events.items)
    assert np.array_equal(one.events.timestamps, two.events.timestamps)
    assert not np.array_equal(one.events.items, other.events.items)


def test_every_event_counts_in_a_stream_of_any_length() -> None:
    for n in (1, 2, 65, 777):
        assert len(sources.synthetic(n, 0).events) == n


def test_an_empty_stream_is_refused() -> None:
    with pytest.raises(InputError, match="at least one"):
        sources.synthetic(0, 0)


def test_users_change_clusters_and_items_come_and_go() -> None:
    stream = sources.synthetic(12_000, 3)
    first, last = stream.events[:2_000], stream.events[-2_000:]

    fresh = ~np.isin(last.items, stream.events[:-2_000].items)
    gone = ~np.isin(first.items, stream.events[2_000:].items)
    assert fresh.any()
    assert gone.any()
    users = stream.events.users
    assert any(len(np.unique(stream.clusters[users == user])) > 1 for user in np.unique(users)[:50])


def test_activity_and_attraction_are_skewed() -> None:
    events = sources.synthetic(12_000, 3).events
    for column in (events.users, events.items):
        counts = np.sort(np.unique(column, return_counts=True)[1])[::-1]
        assert counts[: len(counts) // 5].sum() > 0.35 * len(events)


def test_ranking_by_the_truth_is_a_ceiling_between_chance_and_certainty() -> None:
    stream = sources.synthetic(12_000, 3)

    assert 0.5 < stream.ceiling(0.1) < 0.9
