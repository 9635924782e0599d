"""What a power cut leaves of Redis's append-only file.

Invariant: only the tail is touched, of a server that is down; the file stays one
that Redis loads (`aof-load-truncated`, on by default, drops a command cut in two).
"""

from __future__ import annotations

import shutil
from pathlib import Path

from driftline.servers import RedisServer


def size(server: RedisServer) -> int:
    """Return the bytes of the part that is being appended to; 0 when there is none."""
    return _growing(server).stat().st_size


def cut_tail(server: RedisServer, keep: int) -> int:
    """Keep the first `keep` bytes and return how many were cut; `server` must be down."""
    assert not server.running, "it would go on writing behind the cut"
    file = _growing(server)
    before = file.stat().st_size
    with file.open("r+b") as opened:
        opened.truncate(min(keep, before))
    return max(0, before - keep)


def wipe(server: RedisServer) -> None:
    """Lose everything; `server` must be down."""
    assert not server.running, "it would go on writing"
    shutil.rmtree(server.data_dir / "appendonlydir")


def command_ends(server: RedisServer, behind: int) -> list[int]:
    """Return the offsets behind `behind` at which a command begins."""
    data = _growing(server).read_bytes()
    found, at = [], data.find(b"\r\n*", behind)
    while at >= 0:  # a row's bytes may look like one: then it is a cut in the middle, which is fine too
        found.append(at + 2)
        at = data.find(b"\r\n*", at + 2)
    return found


def _growing(server: RedisServer) -> Path:
    return max(server.data_dir.glob("appendonlydir/*.incr.aof"), key=lambda file: file.stat().st_mtime_ns)
