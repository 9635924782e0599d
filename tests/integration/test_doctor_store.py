"""`driftline doctor` and the commands on versions against a real S3-compatible server."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from driftline.versions import group_url, open_repository, open_store
from tests.integration.commands import driftline
from tests.support import servers
from tests.support.versioning import Live

pytestmark = pytest.mark.s3


@pytest.fixture
def settings(s3: servers.S3) -> dict[str, str]:
    """The environment of a process that finds its versions there, as the store's own tools have it."""
    return {
        "DRIFTLINE_STORE_URL": f"s3://{s3.create_bucket()}/driftline",
        "AWS_ENDPOINT": s3.endpoint,
        "AWS_ACCESS_KEY_ID": s3.access_key,
        "AWS_SECRET_ACCESS_KEY": s3.secret_key,
        "AWS_REGION": s3.region,
    }


def store_findings(settings: dict[str, str], cwd: Path) -> dict[str, tuple[str, bool]]:
    done = driftline("doctor", "--json", cwd=cwd, settings=settings)
    findings = json.loads(done.stdout)["findings"]
    return {
        each["what"]: (each["severity"], each["unchecked"]) for each in findings if each["area"] == "store"
    }


def test_a_store_with_conditional_writes_is_well(settings: dict[str, str], tmp_path: Path) -> None:
    found = store_findings(settings, tmp_path)
    assert found["create-if-absent"] == ("ok", False)
    assert {severity for severity, _ in found.values()} == {"ok"}


def test_a_store_that_refuses_this_client_is_told(settings: dict[str, str], tmp_path: Path) -> None:
    found = store_findings(settings | {"AWS_SECRET_ACCESS_KEY": "wrong"}, tmp_path)
    assert found == {"reachable": ("fail", True)}


def test_a_store_that_does_not_answer_is_told(settings: dict[str, str], tmp_path: Path) -> None:
    found = store_findings(settings | {"AWS_ENDPOINT": "http://127.0.0.1:9"}, tmp_path)
    assert found == {"reachable": ("fail", True)}


def test_commands_read_versions_from_there_and_make_nothing_here(
    settings: dict[str, str], s3: servers.S3, tmp_path: Path
) -> None:
    options = {
        "endpoint": s3.endpoint,
        "access_key_id": s3.access_key,
        "secret_access_key": s3.secret_key,
        "region": s3.region,
    }
    store = open_store(group_url(settings["DRIFTLINE_STORE_URL"], "default", tmp_path), options)
    live = Live()
    live.upsert([1, 2])
    live.commit(open_repository(store, "default"), "op-0", None)

    logged = driftline("log", "--json", cwd=tmp_path, settings=settings)
    explained = driftline("explain", "1", "latest", cwd=tmp_path, settings=settings)
    unknown = driftline("show", "V-R-1.7", cwd=tmp_path, settings=settings)

    assert logged.returncode == 0, logged.stderr
    assert logged.stderr == ""
    assert [each["version"] for each in json.loads(logged.stdout)] == ["V-R-1.0"]
    assert "stored by  V-R-1.0" in explained.stdout
    assert unknown.returncode == 2
    assert unknown.stderr == "driftline: there is no version V-R-1.7; nearest: V-R-1.0\n"
    assert list(tmp_path.iterdir()) == []
