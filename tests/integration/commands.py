"""The command `driftline` as a process of its own, and the processes it leaves behind.

Invariant: a command sees the environment of this process without its DRIFTLINE_…
variables, plus what the test says; so a developer's own settings change no test.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from tests.support.waiting import until

DRIFTLINE = [sys.executable, "-m", "driftline.cli.main"]


def environment(more: Mapping[str, str] | None = None) -> dict[str, str]:
    ours = {name: value for name, value in os.environ.items() if not name.startswith("DRIFTLINE_")}
    return ours | dict(more or {})


def driftline(
    *arguments: str, cwd: Path, settings: Mapping[str, str] | None = None, seconds: float = 90.0
) -> subprocess.CompletedProcess[str]:
    """Run `driftline` to its end."""
    return subprocess.run(
        [*DRIFTLINE, *arguments],
        cwd=cwd,
        env=environment(settings),
        capture_output=True,
        text=True,
        check=False,
        timeout=seconds,
    )


@contextmanager
def running(*arguments: str, cwd: Path) -> Iterator[subprocess.Popen[str]]:
    """Run `driftline` while inside, at the head of a process group of its own, as a shell does."""
    output = (cwd / "output.txt").open("w")
    with (
        output,
        subprocess.Popen(
            [*DRIFTLINE, *arguments],
            cwd=cwd,
            env=environment(),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            text=True,
            process_group=0,
        ) as process,
    ):
        try:
            yield process
        finally:
            process.kill()


def python(code: str, cwd: Path) -> object:
    """Run a user's script and return what it printed as JSON."""
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=cwd,
        env=environment(),
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def descendants(pid: int) -> set[int]:
    """Return the processes that `pid` has started, and those that they have."""
    found: set[int] = set()
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        for child in map(int, task.read_text().split()):
            found |= {child} | descendants(child)
    return found


def gone(pid: int) -> bool:
    """Whether a process has ended; one that only waits to be reaped has."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return True
    return state in "ZX"


def wait_until_gone(pids: set[int], seconds: float) -> None:
    until(lambda: all(map(gone, pids)), f"processes {sorted(pids)} are gone", seconds=seconds)
