"""Commands that only read: they need no signing key, make nothing, and say what is out of range."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.integration.commands import driftline
from tests.integration.deployment import LOCAL, Deployment, Worker

READING = (["table", "ls"], ["where", "TABLE", "1"], ["shards", "ls", "TABLE"], ["audit", "TABLE"])


@pytest.fixture(scope="module")
def table(deployment: Deployment, worker: Worker) -> str:
    with deployment.client() as client:
        return client.create_table(deployment.spec()).spec.name


@pytest.mark.parametrize("command", READING[:3], ids=" ".join)
def test_needs_no_signing_key(deployment: Deployment, table: str, command: list[str], tmp_path: Path) -> None:
    settings = deployment.environment() | {"DRIFTLINE_KEY": ""}
    words = [table if word == "TABLE" else word for word in command]
    done = driftline(*words, cwd=tmp_path, settings=settings)
    assert done.returncode == 0, done.stderr
    assert done.stdout
    assert list(tmp_path.iterdir()) == []


def test_lists_the_same_tables_with_and_without_the_key(
    deployment: Deployment, table: str, tmp_path: Path
) -> None:
    with deployment.client() as client:
        known = list(client.tables())
    settings = deployment.environment() | {"DRIFTLINE_KEY": ""}
    listed = driftline("table", "ls", cwd=tmp_path, settings=settings).stdout
    assert [line.split("\t")[0] for line in listed.splitlines()] == known
    assert table in known


@pytest.mark.parametrize("deployment", [LOCAL], indirect=True, scope="module")
@pytest.mark.parametrize("command", READING, ids=" ".join)
def test_refuses_a_mistyped_directory_and_names_the_nearest(
    deployment: Deployment, table: str, command: list[str], tmp_path: Path
) -> None:
    (tmp_path / "songs" / "log").mkdir(parents=True)
    settings = deployment.environment() | {"DRIFTLINE_LOG_URL": "local://snogs"}
    words = [table if word == "TABLE" else word for word in command]
    done = driftline(*words, cwd=tmp_path, settings=settings)
    assert done.returncode == 2
    assert (
        done.stderr
        == "driftline: log local://snogs: the directory is not there: did you mean local://songs?\n"
    )
    assert [each.name for each in tmp_path.iterdir()] == ["songs"]


@pytest.mark.parametrize("deployment", [LOCAL], indirect=True, scope="module")
@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("where", "TABLE", "-1"), "id '-1' is not a whole number from 0 to 2^64 - 1"),
        (("where", "TABLE", str(2**64)), "is not a whole number from 0 to 2^64 - 1"),
        (("shards", "move", "TABLE", "-1", "redis"), "no Redis server is named 'redis'"),
        (("tabel", "ls"), "Did you mean 'table'?"),
        (("table", "lss"), "Did you mean 'ls'?"),
    ],
)
def test_what_is_out_of_range_or_misspelt_is_told_with_the_way_out(
    deployment: Deployment, table: str, words: tuple[str, ...], message: str, tmp_path: Path
) -> None:
    given = [table if word == "TABLE" else word for word in words]
    done = driftline(*given, cwd=tmp_path, settings=deployment.environment())
    assert done.returncode == 2
    assert message in done.stderr
