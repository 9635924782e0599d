"""Where the running local stack is, for clients that are given no Redis URL.

Invariant: the file is replaced whole, and removed when the stack ends in order;
after a crash it is stale, and whoever follows it finds nobody answering.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

from driftline.config import Settings
from driftline.errors import ConfigError

NAME = "run.json"


def write(data_dir: Path, url: str) -> None:
    """Note that the stack of `data_dir` has its Redis at `url`."""
    draft = data_dir / f".{NAME}.{os.getpid()}"
    draft.write_text(json.dumps({"redis_url": url, "pid": os.getpid()}) + "\n")
    draft.replace(data_dir / NAME)


def remove(data_dir: Path) -> None:
    """Note that the stack of `data_dir` has ended."""
    (data_dir / NAME).unlink(missing_ok=True)


def redis_url(settings: Settings) -> str:
    """Return the Redis of a deployment: the one set, else that of the running local stack.

    Raises ConfigError telling what to set or start.
    """
    if settings.redis_url is not None:
        return settings.redis_url
    path = settings.data_dir / NAME
    try:
        url = json.loads(path.read_text())["redis_url"]
    except (OSError, ValueError, KeyError, TypeError):
        raise ConfigError(
            f"redis_url is not set and no local stack runs in {settings.data_dir}: start one with "
            "`driftline up`, or set DRIFTLINE_REDIS_URL"
        ) from None
    if not isinstance(url, str):
        raise ConfigError(f"{path}: redis_url is {url!r}; remove the file and start `driftline up` again")
    return url
