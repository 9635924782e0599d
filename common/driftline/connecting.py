"""`driftline.connect`, `driftline.open_versions`: the deployment that the settings name.

Invariant: what is passed wins over DRIFTLINE_… variables, those over
driftline.toml, and those over the local stack in the working directory.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from driftline.client import AsyncClient, Client, Options
from driftline.config import Settings, kafka_security, load_settings, signing_key
from driftline.errors import ConfigError
from driftline.stack.run_file import redis_url as find_redis_url
from driftline.versions.opening import open_group
from driftline.versions.repository import Repository
from driftline.versions.source import StoredVersions

if TYPE_CHECKING:
    from driftline.notebook import Versions


def connect(
    log_url: str | None = None,
    redis_url: str | None = None,
    *,
    group: str | None = None,
    key: str | None = None,
    producer: str | None = None,
    producer_epoch: int = 0,
    gradient_dtype: str = "F32",
    merge_steps: int = 1,
) -> Client:
    """Return a connected client; use it in a `with` block, which ends by flushing.

    What is not given comes from the settings: see `driftline config show`. `producer` names
    this trainer over restarts: then `push` must be given the steps of its checkpoint. Without
    a name every client is a new producer. `merge_steps`: the gradients of so many steps are summed
    before they are sent. Raises ConfigError, LogUnavailableError.
    """
    return Client(
        options(log_url, redis_url, group, key, producer, producer_epoch, gradient_dtype, merge_steps)
    )


def connect_async(
    log_url: str | None = None,
    redis_url: str | None = None,
    *,
    group: str | None = None,
    key: str | None = None,
    producer: str | None = None,
    producer_epoch: int = 0,
    gradient_dtype: str = "F32",
    merge_steps: int = 1,
) -> AsyncClient:
    """Return a client for `async with`; see `connect`."""
    return AsyncClient(
        options(log_url, redis_url, group, key, producer, producer_epoch, gradient_dtype, merge_steps)
    )


def open_versions(store_url: str | None = None, *, group: str | None = None) -> Versions:
    """Return the versions of a group, to read rows, whole tables and differences from.

    What is not given comes from the settings, as for `connect`; neither log, Redis nor a key is needed,
    and nothing is made. Raises ConfigError where there are no versions.

    Examples
    --------
    >>> with example_deployment():
    ...     versions = driftline.open_versions()
    >>> versions.rows("items@latest", [7]).vectors.tolist()
    [[3.0, 4.0]]
    """
    from driftline.notebook import Versions  # only here, for it loads the object store's client
    from driftline.versions import find_group

    flags = {"store_url": store_url, "group": group}
    settings = load_settings(flags, cwd=Path.cwd(), environ=os.environ).settings
    found = find_group(
        settings.store_url,
        settings.group,
        settings.data_dir,
        cache_dir=settings.version_cache_dir,
        cache_bytes=settings.version_cache_bytes,
    )
    return Versions(found)


def versions_of(settings: Settings) -> StoredVersions:
    """Return the versions of the deployment that `settings` name; opened when first asked for."""

    def open_them() -> Repository:
        return open_group(
            settings.store_url,
            settings.group,
            settings.data_dir,
            cache_dir=settings.version_cache_dir,
            cache_bytes=settings.version_cache_bytes,
        )

    return StoredVersions(open_them)


def options(
    log_url: str | None,
    redis_url: str | None,
    group: str | None,
    key: str | None,
    producer: str | None,
    producer_epoch: int,
    gradient_dtype: str,
    merge_steps: int,
) -> Options:
    """Return the options of a client, with what is None taken from the settings."""
    flags = {"log_url": log_url, "redis_url": redis_url, "group": group}
    settings = load_settings(flags, cwd=Path.cwd(), environ=os.environ).settings
    return options_of(settings, key, producer, producer_epoch, gradient_dtype, merge_steps)


def options_of(
    settings: Settings,
    key: str | None = None,
    producer: str | None = None,
    producer_epoch: int = 0,
    gradient_dtype: str = "F32",
    merge_steps: int = 1,
) -> Options:
    """Return the options of a client of the deployment that `settings` name."""
    try:
        keys = key or signing_key(settings)
    except ConfigError:
        keys = None  # enough to read and push; an op says that it needs the key
    return Options(
        settings.log_url,
        find_redis_url(settings),
        settings.group,
        keys,
        producer,
        producer_epoch,
        settings.push_buffer_bytes,
        gradient_dtype,
        kafka_security(settings),
        merge_steps,
        settings.store_url,
        settings.data_dir,
        settings.version_cache_dir,
    )
