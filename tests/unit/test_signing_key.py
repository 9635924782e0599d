"""The signing key: made once, kept from others, never made up."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path

import pytest

from driftline.config import Settings, new_key, signing_key
from driftline.errors import ConfigError
from driftline.frames.headers import Keyring
from tests.support.settings import KEY

# The signing key


def local(path: Path) -> Settings:
    return Settings(data_dir=path / "data")


def test_a_local_run_makes_its_key_once(tmp_path: Path) -> None:
    first = signing_key(local(tmp_path))
    Keyring.parse(first)
    assert signing_key(local(tmp_path)) == first


def test_the_key_file_is_for_its_owner_only_and_alone(tmp_path: Path) -> None:
    signing_key(local(tmp_path))
    assert [path.name for path in (tmp_path / "data").iterdir()] == ["key"]
    assert stat.S_IMODE((tmp_path / "data" / "key").stat().st_mode) == 0o600


ASK = """
import sys
from pathlib import Path
from driftline.config import Settings, signing_key
for line in sys.stdin:
    print(signing_key(Settings(data_dir=Path(line.strip()))), flush=True)
"""


def test_processes_that_start_together_get_the_same_key(tmp_path: Path) -> None:
    with ExitStack() as stack:
        command = [sys.executable, "-c", ASK]
        processes = [
            stack.enter_context(
                subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
            )
            for _ in range(4)
        ]
        for attempt in range(50):
            for process in processes:
                assert process.stdin is not None
                process.stdin.write(f"{tmp_path / str(attempt)}\n")
                process.stdin.flush()
            keys = [process.stdout.readline() for process in processes if process.stdout is not None]
            assert len(set(keys)) == 1
            assert os.listdir(tmp_path / str(attempt)) == ["key"]


def test_the_loser_of_the_race_takes_the_winners_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    link = os.link

    def rival(source: Path, target: Path) -> None:
        target.write_text(KEY)
        link(source, target)

    monkeypatch.setattr(os, "link", rival)
    assert signing_key(local(tmp_path)) == KEY
    assert [path.name for path in (tmp_path / "data").iterdir()] == ["key"]


def test_a_key_given_wins_over_a_key_file(tmp_path: Path) -> None:
    settings = Settings.model_validate({"key": KEY, "key_file": tmp_path / "gone"})
    assert signing_key(settings) == KEY


def test_a_key_file_may_hold_retired_keys(tmp_path: Path) -> None:
    (tmp_path / "keys").write_text(f"{KEY},{new_key()}\n")
    text = signing_key(Settings(key_file=tmp_path / "keys"))
    assert len(Keyring.parse(text).retired) == 1


def test_a_key_file_that_was_named_is_never_made_up(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"key_file .*gone.* cannot be read: No such file"):
        signing_key(Settings(key_file=tmp_path / "gone"))


def test_a_malformed_key_file_is_named_and_not_quoted(tmp_path: Path) -> None:
    (tmp_path / "keys").write_text("hunter2")
    with pytest.raises(ConfigError, match=r"keys': key 1 of 1") as caught:
        signing_key(Settings(key_file=tmp_path / "keys"))
    assert "hunter2" not in str(caught.value)


def test_kafka_without_a_key_tells_how_to_make_one(tmp_path: Path) -> None:
    settings = Settings(log_url="kafka://h:9092", data_dir=tmp_path)
    with pytest.raises(ConfigError, match="driftline config new-key"):
        signing_key(settings)
    assert list(tmp_path.iterdir()) == []
