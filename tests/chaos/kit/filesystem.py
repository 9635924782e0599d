"""Disks that are full: a small file system of its own, or a limit on the size of files.

Invariant: what is limited here is one directory or one process; the machine's own
disks are never filled. Mounting needs root; where it is refused, `MountError` says so.
"""

from __future__ import annotations

import errno
import os
import resource
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path


class MountError(Exception):
    """This process may not mount."""


@dataclass(frozen=True, slots=True)
class SmallDisk:
    """A tmpfs of a fixed size; `fill` takes what is left, `free` gives it back."""

    path: Path

    def fill(self, leave: int = 0) -> int:
        """Use up all space but `leave` bytes and return how much that was."""
        taken = 0
        with self._ballast.open("ab") as file:
            while (wanted := self.available() - leave) > 0:
                try:
                    os.posix_fallocate(file.fileno(), file.seek(0, os.SEEK_END), wanted)
                    taken += wanted
                except OSError as error:
                    if error.errno != errno.ENOSPC:  # else: somebody was faster, less is left now
                        raise
        return taken

    def free(self) -> None:
        self._ballast.unlink(missing_ok=True)

    def available(self) -> int:
        state = os.statvfs(self.path)
        return state.f_bavail * state.f_frsize

    @property
    def _ballast(self) -> Path:
        return self.path / "ballast"


@contextmanager
def small_disk(path: Path, size: int) -> Iterator[SmallDisk]:
    """Mount a file system of `size` bytes at `path`. Raises MountError."""
    path.mkdir(parents=True, exist_ok=True)
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(path)],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise MountError(done.stderr.strip())
    try:
        yield SmallDisk(path)
    finally:
        subprocess.run(["umount", "--lazy", str(path)], check=True)


def limit_file_size(pid: int, largest: int | None) -> None:
    """Let a running process write no file beyond `largest` bytes; None: as large as it likes.

    Only the soft limit moves, so that it can be lifted again. A write beyond it gives EFBIG,
    after a SIGXFSZ that Python, Redis and the JVM ignore.
    """
    _, hard = resource.prlimit(pid, resource.RLIMIT_FSIZE)
    resource.prlimit(pid, resource.RLIMIT_FSIZE, (hard if largest is None else largest, hard))
