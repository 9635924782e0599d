"""The local stack: where it is, that it keeps its parts up, and that nothing outlives it."""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path

import pytest
import redis

from driftline.config import Settings, load_settings
from driftline.errors import ConfigError, StateError
from driftline.servers.child import Command, spawn
from driftline.stack import local, run_file, service
from driftline.stack.local import Endpoints, LocalStack
from tests.support.waiting import until


def settings_in(directory: Path, **more: object) -> Settings:
    flags = {
        "data_dir": str(directory),
        "log_url": f"local://{directory}/log",
        "versioner": False,
        "drift_monitor": False,
        **more,
    }
    return load_settings(flags, cwd=directory, environ={}).settings


def test_a_running_stack_is_found_by_its_file(tmp_path: Path) -> None:
    run_file.write(tmp_path, "redis://127.0.0.1:7777/0")
    assert run_file.redis_url(settings_in(tmp_path)) == "redis://127.0.0.1:7777/0"
    assert json.loads((tmp_path / run_file.NAME).read_text())["pid"] == os.getpid()
    assert [path.name for path in tmp_path.iterdir()] == [run_file.NAME]  # replaced whole: no draft is left


def test_the_redis_that_is_set_wins_over_the_file(tmp_path: Path) -> None:
    run_file.write(tmp_path, "redis://127.0.0.1:7777/0")
    settings = settings_in(tmp_path, redis_url="redis://elsewhere:1/0")
    assert run_file.redis_url(settings) == "redis://elsewhere:1/0"


def test_without_a_stack_the_error_says_what_to_start_or_set(tmp_path: Path) -> None:
    run_file.write(tmp_path, "redis://127.0.0.1:7777/0")
    run_file.remove(tmp_path)
    run_file.remove(tmp_path)
    with pytest.raises(ConfigError, match="driftline up"):
        run_file.redis_url(settings_in(tmp_path))


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"redis_url": 7}'])
def test_a_damaged_file_is_no_stack(tmp_path: Path, text: str) -> None:
    (tmp_path / run_file.NAME).write_text(text)
    with pytest.raises(ConfigError):
        run_file.redis_url(settings_in(tmp_path))


def test_endpoints_do_not_show_the_key() -> None:
    assert "ab" * 16 not in repr(Endpoints("local://x", "redis://y", "default", "ab" * 16))


def _alive(pid: int) -> bool:
    """Tell whether a process runs; a zombie does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="reads /proc")
def test_parts_that_die_are_started_again_and_nothing_outlives_the_stack(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The worker is a stand-in: what is specified here is the keeping, not the aggregator."""
    pids = tmp_path / "pids"
    program = f"import os, time; open({str(pids)!r}, 'a').write(f'{{os.getpid()}} '); time.sleep(600)"

    def stand_in(name: str, command: Command, directory: Path) -> object:
        return spawn(name, Command([sys.executable, "-c", program], command.environment), directory)

    monkeypatch.setattr(local, "spawn", stand_in)

    def workers() -> list[int]:
        return [int(pid) for pid in pids.read_text().split()] if pids.exists() else []

    with LocalStack(settings_in(tmp_path)) as stack:
        url = stack.endpoints.redis_url
        assert run_file.redis_url(settings_in(tmp_path)) == url
        with redis.Redis.from_url(url) as client:
            client.set("kept", "yes")
            server = int(client.info("server")["process_id"])
        until(lambda: len(workers()) == 1, "the worker runs")
        os.kill(workers()[0], signal.SIGKILL)
        until(lambda: len(workers()) == 2, "the worker runs again")
        os.kill(server, signal.SIGKILL)
        until(lambda: stack.restarts == 2 and _kept(url), "Redis runs again, on the same port and data")
        with redis.Redis.from_url(url) as client:
            server = int(client.info("server")["process_id"])
        assert _alive(server)
        assert _alive(workers()[1])
    assert not _alive(server)
    assert not _alive(workers()[1])
    assert not (tmp_path / run_file.NAME).exists()


def given_up(directory: Path, monkeypatch: pytest.MonkeyPatch, program: str) -> LocalStack:
    """Run a stack whose aggregator is `program` until it is not kept up any more."""

    def stand_in(name: str, command: Command, where: Path) -> object:
        return spawn(name, Command([sys.executable, "-c", program], command.environment), where)

    monkeypatch.setattr(local, "spawn", stand_in)
    monkeypatch.setattr(local, "_SLOWEST", 0.2)
    with LocalStack(settings_in(directory, redis_url="redis://127.0.0.1:1/0")) as stack:
        until(lambda: stack.failure is not None, "the stack gives up", seconds=30)
    return stack


def test_an_aggregator_that_cannot_run_as_it_is_set_up_is_not_started_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said = "1 ERROR worker: the worker cannot run: http_port 80: in use"
    stack = given_up(tmp_path, monkeypatch, f"import sys; print({said!r}); sys.exit(2)")
    assert stack.restarts == 0
    assert isinstance(stack.failure, ConfigError)
    assert "http_port 80: in use" in str(stack.failure)


def test_an_aggregator_that_dies_right_after_each_start_is_given_up_with_the_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = "print('1 ERROR worker: the worker stopped on an error'); raise ValueError('boom')"
    stack = given_up(tmp_path, monkeypatch, program)
    assert stack.restarts == service.QUICK_ENDS - 1
    assert isinstance(stack.failure, StateError)
    assert "ValueError: boom" in str(stack.failure)


def _kept(url: str) -> bool:
    try:
        with redis.Redis.from_url(url) as client:
            return bool(client.get("kept") == b"yes")
    except redis.RedisError:
        return False
