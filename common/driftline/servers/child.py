"""Child processes that die with their parent and own their data directory.

Invariant: when the parent is gone, however it went, the kernel signals the child
(Linux); and the lock on the data directory is held by the child itself, so a new
server waits for an old one that is still shutting down and two never share data.

Two traps shape this module. The parent-death signal is tied to the *thread* that
forked, so all children are forked by one thread that lives as long as the process.
And `preexec_fn` can deadlock in a threaded parent, so the signal is set by a small
Python program that then becomes the server by exec.
"""

from __future__ import annotations

import atexit
import fcntl
import os
import queue
import signal
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from pathlib import Path

from driftline.errors import ConfigError, TimedOutError

_LOG_TAIL = 2000  # bytes of a server's log that an error message carries
_LOCK_WAIT = 10.0  # seconds; Redis and Kafka shut down in well under one
_POLL = 0.02

# argv: parent pid, signal, program, arguments. A blocked signal would stay blocked over exec,
# hence the mask. On systems without prctl the server runs without the death signal; there
# `atexit` covers every end of the parent but a SIGKILL.
_BECOME_SERVER = """
import ctypes, os, signal, sys
signal.pthread_sigmask(signal.SIG_SETMASK, [])
parent, number = int(sys.argv[1]), int(sys.argv[2])
if sys.platform == "linux":
    ctypes.CDLL(None, use_errno=True).prctl(1, number, 0, 0, 0)
    if os.getppid() != parent:
        sys.exit(1)
os.execvp(sys.argv[3], sys.argv[3:])
"""


_Job = Callable[[], "subprocess.Popen[bytes]"]


class _Forker:
    """The one thread that forks; a daemon, so it ends only with the process."""

    def __init__(self) -> None:
        self._jobs: queue.SimpleQueue[tuple[_Job, Future[subprocess.Popen[bytes]]]] = queue.SimpleQueue()
        threading.Thread(target=self._run, name="driftline-servers", daemon=True).start()

    def start(self, job: _Job) -> subprocess.Popen[bytes]:
        done: Future[subprocess.Popen[bytes]] = Future()
        self._jobs.put((job, done))
        return done.result()

    def _run(self) -> None:
        while True:
            job, done = self._jobs.get()
            try:
                done.set_result(job())
            except BaseException as error:  # noqa: BLE001 - handed to the caller, who raises it
                done.set_exception(error)


_forker: _Forker | None = None
_forker_lock = threading.Lock()
_running: weakref.WeakSet[Child] = weakref.WeakSet()


def _the_forker() -> _Forker:
    global _forker  # noqa: PLW0603 - one per process, made when first needed
    with _forker_lock:
        if _forker is None:
            _forker = _Forker()
            atexit.register(_kill_all)
        return _forker


def _forget_forker() -> None:
    """Threads and children do not survive a fork: a forked child makes its own forker."""
    global _forker, _forker_lock
    _forker, _forker_lock = None, threading.Lock()
    _running.clear()


os.register_at_fork(after_in_child=_forget_forker)


def _kill_all() -> None:
    for child in list(_running):
        child.kill()


@dataclass(frozen=True, slots=True)
class Command:
    """What to run: arguments, environment on top of ours, and the signal sent when the parent dies."""

    arguments: Sequence[str]
    environment: Mapping[str, str] = field(default_factory=dict)
    death_signal: signal.Signals = signal.SIGTERM


class Child:
    """A running server process. Made by `spawn`; ends by `stop` or `kill`."""

    def __init__(self, name: str, process: subprocess.Popen[bytes], log: Path, log_start: int) -> None:
        self.name = name
        self.log = log
        self._process = process
        self._log_start = log_start
        _running.add(self)

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def alive(self) -> bool:
        return self._process.poll() is None

    @property
    def exit_status(self) -> int | None:
        """How the process ended: its status, minus the signal that killed it; None while it runs."""
        return self._process.poll()

    def output(self) -> str:
        """Return the end of what this process has written to its log."""
        with self.log.open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(self._log_start, size - _LOG_TAIL))
            return file.read().decode(errors="replace").strip()

    def wait_until(self, ready: Callable[[], bool], timeout: float) -> bool:
        """Return True once `ready()`, False if the process ended first.

        Raises TimedOutError, with the process killed, when neither happens within `timeout` seconds.
        """
        deadline = time.monotonic() + timeout
        try:
            while self.alive:
                if ready():
                    return True
                if time.monotonic() > deadline:
                    raise TimedOutError(
                        f"{self.name} (pid {self.pid}) did not answer within {timeout:g} s; "
                        f"its log {self.log} ends:\n{self.output()}"
                    )
                time.sleep(_POLL)
        except BaseException:  # a Ctrl-C too: nobody else knows of this process yet
            self.kill()
            raise
        _running.discard(self)
        return False

    def stop(self, timeout: float) -> None:
        """Ask the process to end (SIGTERM) and wait; after `timeout` seconds it is killed."""
        if self.alive:
            self._process.terminate()
        try:
            self._process.wait(timeout)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        _running.discard(self)

    def kill(self) -> None:
        """End the process at once (SIGKILL), as a power cut would, and reap it."""
        if self.alive:
            self._process.kill()
        self._process.wait()
        _running.discard(self)


def spawn(name: str, command: Command, data_dir: Path) -> Child:
    """Start `command` as the only server on `data_dir`; its output goes to `data_dir`/server.log.

    Raises ConfigError when another server holds the directory or the program cannot be run.
    """
    data_dir.mkdir(parents=True, exist_ok=True)
    lock = _lock(name, data_dir)
    log = data_dir / "server.log"
    try:
        with log.open("ab") as output:
            start = output.tell()
            process = _the_forker().start(
                lambda: subprocess.Popen(
                    [
                        sys.executable,
                        "-ISc",
                        _BECOME_SERVER,
                        str(os.getpid()),
                        str(int(command.death_signal)),
                        *command.arguments,
                    ],
                    env={**os.environ, **command.environment},
                    cwd=data_dir,
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,  # a Ctrl-C is ours to handle: servers end in our order
                    pass_fds=(lock,),
                )
            )
    except OSError as error:
        raise ConfigError(f"cannot start {name} by {command.arguments[0]!r}: {error}") from error
    finally:
        os.close(lock)
    return Child(name, process, log, start)


def _lock(name: str, data_dir: Path) -> int:
    descriptor = os.open(data_dir / "server.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    deadline = time.monotonic() + _LOCK_WAIT
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > deadline:
                os.close(descriptor)
                raise ConfigError(
                    f"another server runs on {data_dir}: stop it, or give {name} a directory of its own"
                ) from None
            time.sleep(_POLL)
        else:
            return descriptor
