"""`driftline up` and `driftline demo`: a whole stack on this machine that leaves nothing behind."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.commands import (
    descendants,
    driftline,
    environment,
    gone,
    python,
    running,
    wait_until_gone,
)
from tests.support.waiting import until

SCRIPT = """
import json, driftline
with driftline.connect() as client:
    rule = {"kind": "sgd", "lr": 1.0}
    table = client.create_table(driftline.TableSpec("users", dim=2, shards=2, optimizer=rule))
    before = table.get([7]).vectors
    table.push([7], [[1.0, 2.0]])
    print(json.dumps((before - table.get([7], read_your_writes=True).vectors).round(5).tolist()))
"""
Up = subprocess.Popen[str]


@pytest.fixture
def up(tmp_path: Path) -> Iterator[Up]:
    """`driftline up` in `tmp_path`, with its Redis and aggregator running."""
    with running("up", "--http-port", "0", cwd=tmp_path) as process:
        until(lambda: is_up(tmp_path, process), "driftline up says where everything is", seconds=30)
        yield process
        pids = descendants(process.pid)
        process.kill()
        wait_until_gone(pids, seconds=30)


def is_up(directory: Path, process: Up) -> bool:
    assert process.poll() is None, (directory / "output.txt").read_text()
    return "Ctrl-C ends everything" in (directory / "output.txt").read_text()


def test_clients_in_the_same_directory_find_the_stack_without_arguments(up: Up, tmp_path: Path) -> None:
    assert python(SCRIPT, tmp_path) == [[1.0, 2.0]]
    listed = driftline("table", "ls", cwd=tmp_path)
    assert listed.stdout == "users\t2 shards\t2 dimensions\tsgd\n"
    assert driftline("audit", "users", cwd=tmp_path).returncode == 0


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_everything_in_order_within_seconds(
    up: Up, tmp_path: Path, number: signal.Signals
) -> None:
    python(SCRIPT, tmp_path)
    pids = descendants(up.pid)
    assert len(pids) == 4  # Redis, the aggregator, the versioner and the drift monitor
    os.killpg(up.pid, number)  # as a terminal does: to the whole group
    assert up.wait(10) == 0
    assert all(map(gone, pids))
    assert not (tmp_path / ".driftline" / "run.json").exists()


def test_kill_9_leaves_nothing_running_and_the_next_start_has_what_was_trained(
    up: Up, tmp_path: Path
) -> None:
    python(SCRIPT, tmp_path)
    pids = descendants(up.pid)
    up.kill()
    up.wait()
    wait_until_gone(pids, seconds=20)
    with running("up", "--http-port", "0", cwd=tmp_path) as again:
        until(lambda: is_up(tmp_path, again), "driftline up is back", seconds=30)
        assert python(SCRIPT, tmp_path) == [[1.0, 2.0]]
        assert driftline("audit", "users", cwd=tmp_path).returncode == 0
        again.send_signal(signal.SIGINT)
        assert again.wait(10) == 0


def test_a_part_that_is_killed_is_started_again(up: Up, tmp_path: Path) -> None:
    python(SCRIPT, tmp_path)
    for victim in descendants(up.pid):
        os.kill(victim, signal.SIGKILL)
        until(lambda victim=victim: gone(victim), "the victim is gone")  # type: ignore[misc]
        until(lambda: len(descendants(up.pid)) == 4, "all parts run again", seconds=20)
        assert python(SCRIPT, tmp_path) == [[1.0, 2.0]]
    assert driftline("audit", "users", cwd=tmp_path).returncode == 0


@pytest.mark.slow
def test_a_second_stack_in_the_same_directory_is_refused(up: Up, tmp_path: Path) -> None:
    second = driftline("up", "--http-port", "0", cwd=tmp_path, seconds=60)
    assert second.returncode == 2
    assert "another server runs on" in second.stderr
    assert python(SCRIPT, tmp_path) == [[1.0, 2.0]]  # and the first is unharmed


def test_a_stack_whose_health_port_is_taken_ends_and_says_so(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        done = driftline("up", "--http-port", str(port), cwd=tmp_path)
    assert done.returncode == 2
    last = done.stderr.strip().splitlines()[-2:]
    assert last[0] == "driftline: the aggregator cannot run, and no restart would help:"
    assert f"http_port {port}: " in last[1]
    assert "address already in use" in last[1]
    assert not (tmp_path / ".driftline" / "run.json").exists()


def test_without_a_stack_a_client_says_how_to_start_one(tmp_path: Path) -> None:
    told = driftline("table", "ls", cwd=tmp_path)
    assert told.returncode == 2
    assert "start `driftline up`, or set DRIFTLINE_LOG_URL" in told.stderr
    assert list(tmp_path.iterdir()) == []  # looking makes nothing


# -- the demo ------------------------------------------------------------------------------


def demo(directory: Path, *arguments: str) -> dict[str, object]:
    """Run the demo, which must leave no process behind, and return its summary."""
    done = driftline("demo", "--no-wait", "--json", "summary.json", *arguments, cwd=directory, seconds=150)
    assert done.returncode == 0, done.stderr
    summary = json.loads((directory / "summary.json").read_text())
    assert isinstance(summary, dict)
    assert summary["audit"] == "ok", summary
    return summary


def test_the_demo_ends_with_an_audit_that_is_ok(tmp_path: Path) -> None:
    summary = demo(tmp_path, "--events", "2000")
    assert (summary["events"], summary["source"]) == (2000, "synthetic")
    versions = summary["versions"]
    assert isinstance(versions, list)
    assert [each["version"] for each in versions] == ["V-R-1.0", "V-R-1.1", "V-R-1.2", "V-R-1.3"]
    assert all(0 < each["changed"] <= each["rows"] and each["bytes"] for each in versions)
    assert summary["backups"] == 4
    assert sorted(path.name for path in tmp_path.iterdir()) == ["summary.json"]


def test_the_demo_trains_on_a_csv_file(tmp_path: Path) -> None:
    lines = [f"{1000 + at},user-{at % 17},item-{at * at % 23}" for at in range(400)]
    (tmp_path / "events.csv").write_text("timestamp,user,item\n" + "\n".join(lines) + "\n")
    assert demo(tmp_path, "--csv", "events.csv")["events"] == 400


def test_the_demo_trains_on_the_history_of_a_repository(tmp_path: Path) -> None:
    repository = tmp_path / "repository"
    history = "".join(commit(at) for at in range(40))
    for arguments, given in ((["init", "-q", str(repository)], ""), (["fast-import", "--quiet"], history)):
        cwd = repository if given else tmp_path
        subprocess.run(["git", *arguments], cwd=cwd, input=given, env=environment(), text=True, check=True)
    subprocess.run(["git", "symbolic-ref", "HEAD", "refs/heads/main"], cwd=repository, check=True)
    assert demo(tmp_path, "--git", "repository")["events"] == 40 * 3


def commit(at: int) -> str:
    """Return commit `at` of a generated history, as `git fast-import` reads it: three files each."""
    files = "".join(
        f"M 644 inline dir/file-{(at * 7 + n) % 20}\ndata <<END\n{at} {n}\nEND\n" for n in range(3)
    )
    who = f"Author {at % 5} <author-{at % 5}@example.com> {1_700_000_000 + at * 60} +0000"
    return f"commit refs/heads/main\nmark :{at + 1}\ncommitter {who}\ndata <<END\ncommit {at}\nEND\n{files}"


@pytest.mark.kafka
def test_the_demo_runs_on_a_kafka_and_a_redis_that_are_there(
    kafka_url: str, redis_url: str, tmp_path: Path
) -> None:
    assert demo(tmp_path, "--events", "1000", "--kafka", kafka_url, "--redis", redis_url)["events"] == 1000
