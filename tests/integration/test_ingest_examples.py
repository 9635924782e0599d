"""The producers of examples/ingest, as docs/how-to/ingest-json.md shows them, against a real broker."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest

from driftline import Client, TableSpec, topics
from driftline.servers.kafka import find_jars, find_java
from tests.integration.deployment import KAFKA, Deployment, Worker, bits
from tests.integration.ingesting import wait_applied
from tests.integration.plain import PlainTable
from tests.support.servers import ROOT

EXAMPLES = ROOT / "examples" / "ingest"
STEPS = 100  # as the examples have it
MAX_ID = 2**64 - 1
IDS = np.array([*range(10), MAX_ID], np.uint64)
GRADS = [[0.5, -1], [0.1, 3e-4]]

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(400),  # Go fetches and compiles its modules
    pytest.mark.parametrize("deployment", [pytest.param(KAFKA, marks=pytest.mark.kafka)], indirect=True),
]


@pytest.fixture
def spec(deployment: Deployment, worker: Worker, client: Client) -> TableSpec:
    """A table of two columns, made."""
    return client.create_table(deployment.spec(dim=2)).spec


def run(command: list[str], directory: Path, environment: Mapping[str, str] | None = None) -> None:
    done = subprocess.run(
        command,
        cwd=directory,
        env=os.environ | (environment or {}),
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"


def arguments(deployment: Deployment) -> list[str]:
    return [deployment.log_url.removeprefix("kafka://"), topics.ingest(deployment.group)]


def check(deployment: Deployment, client: Client, spec: TableSpec) -> None:
    """Compare the table with a plain loop over the gradients that the examples send, bit for bit."""
    wait_applied(deployment, client)
    plain = PlainTable(spec)
    for step in range(STEPS):
        plain.push(np.array([step % 10, MAX_ID], np.uint64), np.array(GRADS, np.float32))
    assert np.array_equal(bits(client.table(spec.name).get(IDS).vectors), bits(plain.get(IDS)))


def test_java(deployment: Deployment, client: Client, spec: TableSpec) -> None:
    classes = str(find_jars() / "*")
    run([str(find_java()), "-cp", classes, "Producer.java", *arguments(deployment), spec.name], EXAMPLES)
    check(deployment, client, spec)


def test_go(deployment: Deployment, client: Client, spec: TableSpec, tmp_path: Path) -> None:
    go = shutil.which("go")
    assert go is not None, "Go is not installed: run deploy/tools/system.sh"
    run([go, "build", "-mod=readonly", "-o", str(tmp_path / "producer"), "."], EXAMPLES)
    run([str(tmp_path / "producer"), *arguments(deployment), spec.name], tmp_path)
    check(deployment, client, spec)


@pytest.mark.parametrize("codec", ["none", "gzip", "snappy", "lz4", "zstd"])
def test_console_producer_however_it_compresses(
    deployment: Deployment, client: Client, spec: TableSpec, tmp_path: Path, codec: str
) -> None:
    producer, lines = tmp_path / "kafka-console-producer.sh", tmp_path / "messages.jsonl"
    main = "org.apache.kafka.tools.ConsoleProducer"  # what the script of a Kafka distribution starts
    producer.write_text(
        f'#!/bin/sh\nexec {find_java()} -cp "{find_jars()}/*" {main} --compression-codec {codec} "$@"\n'
    )
    producer.chmod(0o755)
    messages = [{"table": spec.name, "ids": [step % 10, MAX_ID], "grads": GRADS} for step in range(STEPS)]
    lines.write_text("".join(json.dumps(each) + "\n" for each in messages))
    brokers, topic = arguments(deployment)
    run(
        [str(EXAMPLES / "console.sh"), brokers, topic, str(lines)],
        tmp_path,
        {"KAFKA_CONSOLE_PRODUCER": str(producer)},
    )
    check(deployment, client, spec)
