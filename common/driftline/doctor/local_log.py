"""The directory of an embedded log, and where this machine keeps the rest: facts and verdicts.

Invariant: the directory is looked at, never written to or made.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from driftline.doctor.findings import Finding, fail, ok, unchecked, warn
from driftline.log.local import layout

_LITTLE, _NEXT_TO_NOTHING = 1 << 30, 128 << 20
# No shared memory or no locks over the network: SQLite's WAL and the ownership of shards need both.
NETWORK = ("nfs", "cifs", "smb", "9p", "afs", "ceph", "glusterfs", "lustre", "fuse.sshfs", "fuse.s3fs")
VOLATILE = ("tmpfs", "ramfs")


@dataclass(frozen=True, slots=True)
class Directory:
    """A directory as it is."""

    path: Path
    exists: bool
    writable: bool = False
    free: int = 0  # bytes
    total: int = 0
    filesystem: str | None = None  # type; None: not known on this system


def look(path: Path, mounts: str | None) -> Directory:
    """Return what there is at `path`; `mounts` is the text of /proc/self/mountinfo."""
    path = path.absolute()
    if not path.is_dir():
        return Directory(path, exists=False)
    usage = shutil.disk_usage(path)
    writable = os.access(path, os.W_OK | os.X_OK)
    kind = None if mounts is None else filesystem_of(path.resolve(), mounts)
    return Directory(path, True, writable, usage.free, usage.total, kind)


def read_mounts() -> str | None:
    """Return what is mounted where, None on systems that do not say."""
    try:
        return Path("/proc/self/mountinfo").read_text()
    except OSError:
        return None


def filesystem_of(path: Path, mounts: str) -> str | None:
    """Return the type of the file system that holds `path`: that of its innermost, last mount.

    Examples
    --------
    >>> filesystem_of(Path("/a/b"), "1 0 8:1 / / rw - ext4 d rw\\n2 1 0:9 / /a rw - nfs4 s rw\\n")
    'nfs4'
    """
    best, kind = -1, None
    for line in mounts.splitlines():
        before, _, after = line.partition(" - ")
        # blanks in a path are written as octal escapes
        point = before.split(" ")[4].encode().decode("unicode_escape")
        if path.is_relative_to(point) and len(point) >= best:
            best, kind = len(point), after.split(" ")[0]
    return kind


def judge_log(directory: Directory) -> Iterator[Finding]:
    """Yield the findings on the directory of a log."""
    area = "log"
    if not directory.exists:
        yield unchecked(area, "directory", f"{directory.path} is not there", not_there(directory.path))
        return
    if not layout.holds_log(directory.path):
        yield unchecked(area, "directory", f"{directory.path} holds no log", not_there(directory.path))
        return
    topics = layout.list_topics(directory.path)
    yield ok(area, "directory", f"{directory.path}, {len(topics)} topics")
    yield from _judge(area, directory)


def not_there(path: Path) -> str:
    """Return the way out when there is no log at `path`."""
    near = layout.nearest_log(path)
    return f"did you mean local://{near}?" if near else "start `driftline up`, or set DRIFTLINE_LOG_URL"


def judge_data_dir(directory: Directory) -> Iterator[Finding]:
    """Yield the findings on data_dir."""
    area = "data_dir"
    if not directory.exists:
        yield ok(area, "directory", f"{directory.path} is not there yet: made on first use")
        return
    yield from _judge(area, directory)


def _judge(area: str, directory: Directory) -> Iterator[Finding]:
    path = directory.path
    if directory.writable:
        yield ok(area, "writable", "yes")
    else:
        yield fail(area, "writable", f"{path}: not by this user", "change owner or permissions, or the user")
    kind = directory.filesystem
    if kind is not None and kind.startswith(NETWORK):
        yield fail(
            area,
            "file system",
            f"{kind}: files are shared over a network",
            "put it on a local disk: SQLite needs shared memory and locks; several machines need Kafka",
        )
    elif kind in VOLATILE:
        yield warn(area, "file system", f"{kind}: gone after a restart of the machine", "put it on a disk")
    else:
        yield ok(area, "file system", kind or "type not known")
    found = f"{directory.free / 2**30:,.1f} GiB free of {directory.total / 2**30:,.1f}"
    if directory.free < _NEXT_TO_NOTHING:
        yield fail(area, "disk space", found, "make room: appends fail when it is used up")
    elif directory.free < _LITTLE:
        yield warn(area, "disk space", found, "make room: the log only grows")
    else:
        yield ok(area, "disk space", found)
