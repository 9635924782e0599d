"""Rows go back to a backup in memory, by the command line on a local stack."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

import driftline as library
from driftline.config import load_settings
from driftline.stack.local import LocalStack
from tests.integration.commands import driftline
from tests.support.waiting import until


def backups(cwd: Path) -> list[dict[str, object]]:
    done = driftline("backups", "--json", cwd=cwd, settings={"DRIFTLINE_KEY_FILE": "/nowhere"})
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert isinstance(found, list)
    return found


@pytest.mark.slow
def test_rows_go_back_to_a_backup_in_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    settings = load_settings({"http_port": 0}, cwd=tmp_path, environ={}).settings
    ids = np.arange(20)
    with LocalStack(settings), library.connect() as client:
        songs = client.create_table(library.TableSpec("songs", dim=2, shards=2))
        songs.push(ids, np.ones((20, 2)))
        then = songs.get(ids, read_your_writes=True).vectors
        number = client.snapshot(kind="backup").op
        songs.push(ids, np.ones((20, 2)))
        later = songs.get(ids, read_your_writes=True).vectors
        told = "the versioner tells of its backup"
        until(lambda: any(each["whole"] for each in backups(tmp_path)), told, seconds=60)
        (held,) = backups(tmp_path)
        assert (held["backup"], held["whole"]) == (f"backup-{number}", True)

        words = ("rollback", "--ids", "1,2,77", "--table", "songs", "--to", f"backup-{number}")
        done = driftline(*words, cwd=tmp_path)

        assert done.returncode == 0, done.stderr
        assert done.stdout == (
            f"2 rows of songs are as they were in backup-{number}\n"
            "left as they are, for they had no row then: 77\n"
        )
        now = songs.get(ids).vectors
        assert now[1:3].tobytes() == then[1:3].tobytes()
        assert np.delete(now, [1, 2], 0).tobytes() == np.delete(later, [1, 2], 0).tobytes()
        refused = driftline(*words[:-1], "backup-9999", cwd=tmp_path)
        assert refused.returncode == 2
        assert "backup 9999" in refused.stderr
