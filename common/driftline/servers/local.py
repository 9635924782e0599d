"""The life of a server on loopback: start, stop, kill, and start again.

Invariant: a server keeps its data directory and, once it has started, its ports.
Free ports are only a guess until a server listens on them, so a first start that
loses one to a rival tries others; and an answer counts only from our own process
or on a port that our process has not been refused.
"""

from __future__ import annotations

import socket
from abc import ABC, abstractmethod
from collections.abc import Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import ClassVar, Self

from driftline.errors import ConfigError
from driftline.servers.child import Child, Command, spawn

HOST = "127.0.0.1"
_ATTEMPTS = 5  # each loss of a port needs a rival within milliseconds


class LocalServer(ABC):
    """One server process on a data directory; `start` may follow `stop` or `kill`."""

    name: ClassVar[str]
    ports_needed: ClassVar[int] = 1
    start_timeout: ClassVar[float] = 20.0  # seconds; all start in under three on an idle machine
    stop_timeout: ClassVar[float] = 10.0

    def __init__(self, data_dir: Path, *, port: int | None = None) -> None:
        self.data_dir = data_dir.absolute()
        self._fixed_port = port
        self._ports: Sequence[int] = ()
        self._child: Child | None = None

    def start(self) -> Self:
        """Start the server and return once it answers; no-op while it runs.

        Raises ConfigError when it cannot run, TimedOutError when it stays silent.
        """
        if self.running:
            return self
        prior = self._ports
        for _ in range(1 if prior else _ATTEMPTS):
            ports = prior or self._choose_ports()
            child = spawn(self.name, self._command(ports), self.data_dir)
            if child.wait_until(partial(self._answers, ports, child.pid), self.start_timeout):
                self._ports, self._child = ports, child
                return self
            if not _port_was_taken(child.output()):
                break
        raise ConfigError(
            f"{self.name} ended at once on port {ports[0]}; its log {child.log} ends:\n{child.output()}"
        )

    @property
    def running(self) -> bool:
        return self._child is not None and self._child.alive

    @property
    def pid(self) -> int:
        """Process id; a new one after each start."""
        if self._child is None:
            raise ConfigError(f"{self.name} was never started: call start() first")
        return self._child.pid

    @property
    def port(self) -> int:
        if not self._ports:
            raise ConfigError(f"{self.name} has no port yet: call start() first")
        return self._ports[0]

    def stop(self) -> None:
        """Shut down in order, with everything on disk; no-op while it is down."""
        if self._child is not None:
            self._child.stop(self.stop_timeout)

    def kill(self) -> None:
        """SIGKILL, as a crash would; no-op while it is down."""
        if self._child is not None:
            self._child.kill()

    def restart(self) -> None:
        """Stop in order and start again on the same data and ports."""
        self.stop()
        self.start()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def _choose_ports(self) -> Sequence[int]:
        free = free_ports(self.ports_needed)
        return free if self._fixed_port is None else [self._fixed_port, *free[1:]]

    @abstractmethod
    def _command(self, ports: Sequence[int]) -> Command:
        """Prepare the data directory and return what to run."""

    @abstractmethod
    def _answers(self, ports: Sequence[int], pid: int) -> bool:
        """Return whether the server is ready for clients; called often, must not block for long."""


def free_ports(count: int) -> list[int]:
    """Return `count` different loopback ports that nothing listens on now."""
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind((HOST, 0))
        return [int(each.getsockname()[1]) for each in sockets]


def _port_was_taken(log: str) -> bool:
    return "address already in use" in log.lower()
