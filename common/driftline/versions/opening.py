"""Where the versions of a deployment's group are.

Invariant: every process that is given the same settings opens the same folder, one per
group; what it fetches it keeps below a folder of its machine, never of its working directory.
"""

from __future__ import annotations

from pathlib import Path
from urllib.parse import quote, unquote, urlsplit

from driftline.errors import ConfigError
from driftline.versions.cache import DEFAULT_BYTES
from driftline.versions.obstores import open_store
from driftline.versions.repository import Repository, open_repository
from driftline.versions.stores import checked_name

STORE_FOLDER = "versions"
CACHE_FOLDER = "version-cache"


def group_url(store_url: str | None, group: str, data_dir: Path) -> str:
    """Return the URL of a group's folder; without a store, one in `data_dir`.

    Examples
    --------
    >>> group_url("s3://bucket/emb/", "default", Path("/var/lib/driftline"))
    's3://bucket/emb/default'
    >>> group_url(None, "default", Path("/var/lib/driftline"))
    'file:///var/lib/driftline/versions/default'
    """
    base = store_url if store_url is not None else f"file://{quote(str(data_dir.absolute() / STORE_FOLDER))}"
    return f"{base.rstrip('/')}/{checked_name('group', group)}"


def open_group(
    store_url: str | None,
    group: str,
    data_dir: Path,
    *,
    cache_dir: Path | None = None,
    cache_bytes: int = DEFAULT_BYTES,
) -> Repository:
    """Return the repository of `group`, made if there is none yet; the arguments are settings.

    Raises ConfigError for a URL that names no store or refuses this client, StoreFormatError,
    ObjectStoreUnavailableError. Blocks while the store answers.
    """
    folder = (cache_dir if cache_dir is not None else data_dir.absolute() / CACHE_FOLDER) / group
    store = open_store(group_url(store_url, group, data_dir))
    return open_repository(store, group, cache=folder, cache_bytes=cache_bytes)


def find_group(
    store_url: str | None,
    group: str,
    data_dir: Path,
    *,
    cache_dir: Path | None = None,
    cache_bytes: int = DEFAULT_BYTES,
) -> Repository:
    """Return the repository of `group` to read from: makes nothing, not even a folder.

    What is fetched stays in memory unless there is a cache directory already. Raises ConfigError where
    there are no versions, and as `open_group` does.
    """
    url = group_url(store_url, group, data_dir)
    nothing = ConfigError(
        f"{url} holds no versions: none was committed yet, or store_url, data_dir or group is another"
    )
    parts = urlsplit(url)
    if parts.scheme == "file" and not (Path(unquote(parts.path)) / "format.json").is_file():
        raise nothing
    store = open_store(url)
    if store.head("format.json") is None:
        raise nothing
    folder = (cache_dir if cache_dir is not None else data_dir.absolute() / CACHE_FOLDER) / group
    kept = folder if parts.scheme != "file" and folder.is_dir() else None
    return open_repository(store, group, cache=kept, cache_bytes=cache_bytes)
