"""What docker-compose.yml promises, checked without an engine."""

from __future__ import annotations

import re
import subprocess
import sys
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

import pytest
import yaml

from driftline.config import Settings

ROOT = Path(__file__).resolve().parents[2]
COMPOSE = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
OURS = sorted(name for name, service in SERVICES.items() if "build" in service)
POM = "{http://maven.apache.org/POM/4.0.0}"


def depends_on(service: str) -> dict[str, dict[str, str]]:
    return dict(SERVICES[service].get("depends_on", {}))


@pytest.mark.parametrize("service", sorted(set(SERVICES) - set(OURS)))
def test_every_image_is_pinned_to_a_full_version(service: str) -> None:
    assert re.search(r":v?\d+\.\d+\.\d+(-[a-z0-9.]+)?$", SERVICES[service]["image"])


def test_the_base_image_of_ours_is_pinned_to_a_python_the_project_supports() -> None:
    base = re.search(r"^FROM python:3\.(\d+)-slim$", (ROOT / "deploy/Dockerfile").read_text(), re.MULTILINE)
    assert base is not None
    assert 11 <= int(base.group(1)) <= 13


def test_containers_and_local_tests_run_the_same_kafka() -> None:
    pom = ET.parse(ROOT / "deploy/kafka/pom.xml")
    versions = {
        dependency.findtext(f"{POM}artifactId"): dependency.findtext(f"{POM}version")
        for dependency in pom.iter(f"{POM}dependency")
    }
    assert SERVICES["kafka"]["image"] == f"apache/kafka:{versions['kafka_2.13']}"


def test_containers_and_local_tests_run_the_same_versitygw() -> None:
    pinned = re.search(r"^VERSITYGW := (\S+)$", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert pinned is not None
    assert SERVICES["s3"]["image"] == f"versity/versitygw:{pinned.group(1)}"


@pytest.mark.parametrize("service", OURS)
def test_every_driftline_variable_is_a_setting(service: str) -> None:
    known = {f"DRIFTLINE_{field.upper()}" for field in Settings.model_fields}
    given = {name for name in SERVICES[service]["environment"] if name.startswith("DRIFTLINE_")}
    assert given
    assert given <= known


@pytest.mark.parametrize("service", sorted(SERVICES))
def test_every_service_has_a_health_check_that_ends(service: str) -> None:
    check = SERVICES[service]["healthcheck"]
    assert check["test"][0] == "CMD"
    assert {"interval", "timeout", "retries"} <= set(check)


@pytest.mark.parametrize("service", OURS)
def test_ours_start_only_when_what_they_need_is_healthy(service: str) -> None:
    conditions = {name: need["condition"] for name, need in depends_on(service).items()}
    assert {"kafka", "redis"} <= set(conditions)
    assert set(conditions.values()) == {"service_healthy"}


@pytest.mark.parametrize("service", OURS)
def test_urls_name_services_that_ours_wait_for(service: str) -> None:
    environment = SERVICES[service]["environment"]
    hosts = {
        match.group(1)
        for name, value in environment.items()
        if name.endswith("_URL") and (match := re.match(r"[a-z0-9]+://([^:/]+)", value))
    }
    assert hosts
    assert hosts <= set(depends_on(service))


@pytest.mark.parametrize("service", OURS)
def test_the_command_is_one_that_the_cli_knows(service: str) -> None:
    cli = "import sys; from driftline.cli.main import main; sys.argv[0] = 'driftline'; main()"
    command = [sys.executable, "-c", cli, *SERVICES[service]["command"], "--help"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr


def test_redis_keeps_every_row() -> None:
    command = SERVICES["redis"]["command"]
    settings = dict(zip(command[1::2], command[2::2], strict=True))
    assert settings["--appendonly"] == "yes"
    assert settings["--maxmemory-policy"] == "noeviction"


def test_kafka_creates_no_topic_by_accident() -> None:
    assert SERVICES["kafka"]["environment"]["KAFKA_AUTO_CREATE_TOPICS_ENABLE"] == "false"


@pytest.mark.parametrize("service", sorted(SERVICES))
def test_nothing_is_reachable_from_other_machines(service: str) -> None:
    assert all(port.startswith("127.0.0.1:") for port in SERVICES[service]["ports"])


@pytest.mark.parametrize("service", OURS)
def test_health_and_metrics_can_be_reached_from_outside_the_container(service: str) -> None:
    own = {"versioner": "versioner_http_port", "drift-monitor": "drift_http_port"}
    field = own.get(service, "http_port")
    default = Settings.model_fields[field].default
    assert SERVICES[service]["environment"]["DRIFTLINE_HTTP_HOST"] == "0.0.0.0"
    assert SERVICES[service]["ports"] == [f"127.0.0.1:{default}:{default}"]


def test_the_deployment_key_has_no_default() -> None:
    assert ":?" in SERVICES["aggregator"]["environment"]["DRIFTLINE_KEY"]
