"""Object stores by URL, through obstore: file://, s3://, gs://, az:// and memory://.

Invariant: on every backend `create` is create-if-absent and atomic. On local files
the bytes, and then the folders, are synchronised before and after the name appears:
obstore does not do that, so the local put is ours.
"""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

import obstore
from obstore.exceptions import (
    AlreadyExistsError,
    BaseError,
    NotFoundError,
    PermissionDeniedError,
    UnauthenticatedError,
)
from obstore.store import AzureStore, GCSStore, LocalStore, MemoryStore, S3Store

from driftline.errors import (
    ConfigError,
    ObjectExistsError,
    ObjectMissingError,
    ObjectStoreUnavailableError,
)
from driftline.versions.stores import STAGING, ObjectInfo, ObjectStore, checked_key

if TYPE_CHECKING:  # obstore has these names for type checkers only
    from obstore.store import ClientConfig, RetryConfig
    from obstore.store import ObjectStore as Backend

_RETRY: RetryConfig = {"max_retries": 3, "retry_timeout": timedelta(seconds=20)}
_ENDPOINTS = ("AWS_ENDPOINT", "AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3")
_DELETE_AT_ONCE = 1000  # S3's limit


def open_store(url: str, options: Mapping[str, str] | None = None) -> ObjectStore:
    """Return the object store at `url`; a path in it is the folder all keys are below.

    `options` go to the backend (for S3 e.g. `endpoint`, `region`, `access_key_id`); what they leave
    out comes from the environment, as the backend's own tools have it. Raises ConfigError.
    """
    parts = urlsplit(url)
    given = dict(options or {})
    try:
        if parts.scheme == "file":
            path = Path(unquote(parts.path))
            if parts.netloc or not path.is_absolute():
                raise ConfigError(
                    f"object store {url!r}: file:// takes an absolute path, file:///var/versions"
                )
            return LocalObjects(path)
        if parts.scheme == "memory":
            return ObstoreObjects(MemoryStore(), "memory://")
        if parts.scheme not in ("s3", "gs", "az"):
            raise ConfigError(f"object store {url!r}: file://, s3://, gs://, az:// or memory://")
        client: ClientConfig = {"timeout": "60s", "connect_timeout": "5s"}
        if _endpoint(given).startswith("http://"):
            client["allow_http"] = True
        kind: type[S3Store | GCSStore | AzureStore] = {"s3": S3Store, "gs": GCSStore, "az": AzureStore}[
            parts.scheme
        ]
        made = kind.from_url(url, config=given, client_options=client, retry_config=_RETRY)  # type: ignore[arg-type]
        return ObstoreObjects(made, f"{parts.scheme}://{parts.netloc}{parts.path}")
    except (BaseError, ValueError, OSError) as error:
        raise ConfigError(f"object store {url!r}: {_first_line(error)}") from None


def _endpoint(options: Mapping[str, str]) -> str:
    """Return where S3 is asked, '' for its own place; our client options would hide AWS_ALLOW_HTTP."""
    return next(filter(None, (options.get("endpoint"), *map(os.environ.get, _ENDPOINTS))), "")


class ObstoreObjects:
    """The objects of one obstore backend."""

    def __init__(self, backend: Backend, url: str) -> None:
        self._backend, self._url = backend, url

    @property
    def url(self) -> str:
        """What it was opened by, without credentials."""
        return self._url

    def create(self, key: str, data: bytes) -> None:
        """Make an object; see `ObjectStore.create`."""
        checked_key(key)
        with self._named(key):  # in one request: a multipart upload could not be conditional
            obstore.put(self._backend, key, data, mode="create", use_multipart=False)

    def get(self, key: str) -> bytes:
        """Return a whole object; see `ObjectStore.get`."""
        with self._named(key):
            return obstore.get(self._backend, key).bytes().to_bytes()

    def get_ranges(self, key: str, starts: Sequence[int], ends: Sequence[int]) -> list[bytes]:
        """Return ranges of an object; see `ObjectStore.get_ranges`."""
        with self._named(key):
            found = obstore.get_ranges(self._backend, key, starts=list(starts), ends=list(ends), coalesce=0)
            return [each.to_bytes() for each in found]

    def head(self, key: str) -> ObjectInfo | None:
        """Return what is known of an object."""
        try:
            with self._named(key):
                meta = obstore.head(self._backend, key)
        except ObjectMissingError:
            return None
        return ObjectInfo(meta["path"], meta["size"], meta["last_modified"].timestamp())

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        """Yield the objects in a folder and below."""
        with self._named(prefix):
            for page in obstore.list(self._backend, prefix.rstrip("/") or None, chunk_size=1000):
                for meta in page:
                    yield ObjectInfo(meta["path"], meta["size"], meta["last_modified"].timestamp())

    def delete(self, keys: Sequence[str]) -> None:
        """Delete objects that may exist."""
        for start in range(0, len(keys), _DELETE_AT_ONCE):
            some = list(keys[start : start + _DELETE_AT_ONCE])
            try:
                with self._named(some[0]):
                    obstore.delete(self._backend, some)
            except ObjectMissingError:  # of several: which, and what became of the others, is not said
                for key in some:
                    self._delete_one(key)

    def _delete_one(self, key: str) -> None:
        try:
            with self._named(key):
                obstore.delete(self._backend, key)
        except ObjectMissingError:
            return

    def local_path(self, key: str) -> Path | None:
        """Objects are no files here."""
        return None

    @contextmanager
    def _named(self, key: str) -> Iterator[None]:
        """Turn what obstore raises into driftline's errors."""
        try:
            yield
        except (NotFoundError, FileNotFoundError):
            raise ObjectMissingError(key) from None
        except (AlreadyExistsError, FileExistsError):
            raise ObjectExistsError(key) from None
        except (PermissionDeniedError, UnauthenticatedError, PermissionError) as error:
            raise ConfigError(
                f"{self.url} refuses access to {key or 'a listing'}: {_first_line(error)}"
            ) from None
        except (BaseError, OSError, ValueError) as error:
            raise ObjectStoreUnavailableError(f"{self.url}: {key}: {_first_line(error)}") from None


class LocalObjects(ObstoreObjects):
    """Objects as files below a directory, durable when `create` returns."""

    def __init__(self, root: Path) -> None:
        root.mkdir(parents=True, exist_ok=True)
        super().__init__(LocalStore(root), f"file://{root}")
        self._root = root
        self._durable = {root}  # folders whose own entry has been synchronised

    def create(self, key: str, data: bytes) -> None:
        """Make an object: bytes to disk, then the name (a link fails if there is one), then the folder."""
        target = self._root / checked_key(key)
        draft = self._root / STAGING / uuid.uuid4().hex
        with self._named(key):
            self._make_folder(draft.parent)
            self._make_folder(target.parent)
            try:
                _write_through(draft, data)
                os.link(draft, target)
            finally:
                draft.unlink(missing_ok=True)
            _sync_folder(target.parent)

    def local_path(self, key: str) -> Path | None:
        """Return the file of an object."""
        return self._root / key

    def _make_folder(self, folder: Path) -> None:
        if folder in self._durable:
            if folder.exists():
                return
            self._durable.discard(folder)
        if folder != self._root:
            self._make_folder(folder.parent)
        folder.mkdir(exist_ok=True)
        _sync_folder(folder.parent)
        self._durable.add(folder)


def _write_through(path: Path, data: bytes) -> None:
    with path.open("xb", buffering=0) as file:
        view = memoryview(data)
        while view:
            view = view[file.write(view) :]
        os.fsync(file.fileno())


def _sync_folder(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
