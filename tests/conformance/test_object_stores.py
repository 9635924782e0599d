"""What the version store asks of an object store, on every backend and on the fake of the tests."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from driftline.errors import ConfigError, InputError, ObjectExistsError, ObjectMissingError
from driftline.versions import ObjectStore, open_store, race_create_if_absent
from driftline.versions.stores import store_now
from tests.support import servers
from tests.support.object_store_fake import FakeObjects


def s3_store(s3: servers.S3) -> ObjectStore:
    options = {
        "endpoint": s3.endpoint,
        "access_key_id": s3.access_key,
        "secret_access_key": s3.secret_key,
        "region": s3.region,
    }
    return open_store(f"s3://{s3.create_bucket()}/some/folder", options)


@pytest.fixture(params=["fake", "memory", "file", pytest.param("s3", marks=pytest.mark.s3)])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> ObjectStore:
    makers: dict[str, Callable[[], ObjectStore]] = {
        "fake": lambda: FakeObjects(lambda: 5.0),
        "memory": lambda: open_store("memory://"),
        "file": lambda: open_store(f"file://{tmp_path}/objects"),
        "s3": lambda: s3_store(request.getfixturevalue("s3")),
    }
    return makers[request.param]()


def test_an_object_is_what_was_put(store: ObjectStore) -> None:
    store.create("a/b-1.x", b"content")

    assert store.get("a/b-1.x") == b"content"
    info = store.head("a/b-1.x")
    assert info is not None
    assert (info.key, info.size) == ("a/b-1.x", 7)


def test_an_object_is_never_replaced(store: ObjectStore) -> None:
    store.create("a", b"first")

    with pytest.raises(ObjectExistsError, match="a exists"):
        store.create("a", b"second")
    assert store.get("a") == b"first"


def test_an_object_that_is_not_there_is_named(store: ObjectStore) -> None:
    with pytest.raises(ObjectMissingError, match="a/b"):
        store.get("a/b")
    with pytest.raises(ObjectMissingError, match="a/b"):
        store.get_ranges("a/b", [0], [1])
    assert store.head("a/b") is None


def test_ranges(store: ObjectStore) -> None:
    store.create("a", bytes(range(100)))

    assert store.get_ranges("a", [90, 0, 5], [100, 3, 6]) == [bytes(range(90, 100)), b"\0\1\2", b"\5"]


def test_a_listing_has_what_is_in_the_folder_and_below(store: ObjectStore) -> None:
    for key in ("a/1", "a/b/2", "ab/3", "c"):
        store.create(key, key.encode())

    assert sorted((each.key, each.size) for each in store.list("a")) == [("a/1", 3), ("a/b/2", 5)]
    assert sorted(each.key for each in store.list("")) == ["a/1", "a/b/2", "ab/3", "c"]
    assert list(store.list("nothing")) == []


def test_a_long_listing_is_whole(store: ObjectStore) -> None:
    if isinstance(store, FakeObjects):
        pytest.skip("has no pages")
    keys = {f"a/{number}" for number in range(1100)}
    with ThreadPoolExecutor(8) as pool:
        pool.map(lambda key: store.create(key, b""), keys)

    assert {each.key for each in store.list("a")} == keys
    store.delete(sorted(keys))
    assert list(store.list("a")) == []


def test_deleting_what_is_not_there_is_no_error(store: ObjectStore) -> None:
    store.create("a", b"")
    store.create("c", b"")

    store.delete(["a", "b", "c"])
    store.delete(["b"])

    assert list(store.list("")) == []


def test_a_name_can_be_used_again_after_a_delete(store: ObjectStore) -> None:
    store.create("x/a", b"1")
    store.delete(["x/a"])
    store.create("x/a", b"2")

    assert store.get("x/a") == b"2"


@pytest.mark.parametrize("key", ["", "/a", "a/", "a//b", "a/../b", "a b", "a#1", "ä", "a\n"])
def test_keys_that_a_backend_might_read_otherwise_are_refused(store: ObjectStore, key: str) -> None:
    with pytest.raises(InputError):
        store.create(key, b"")


def test_create_if_absent_is_atomic(store: ObjectStore) -> None:
    result = race_create_if_absent(store)

    assert result.atomic, result
    assert list(store.list("probe")) == []


def test_a_store_that_lets_two_writers_win_is_found_out() -> None:
    class Overwrites(FakeObjects):
        """Looks before it writes, as stores without conditional puts are used."""

        def create(self, key: str, data: bytes) -> None:
            gate.wait(10) if key not in self.objects and data != b"late" else None
            self.objects[key] = (data, 0.0)

    gate = threading.Barrier(8)
    result = race_create_if_absent(Overwrites(lambda: 0.0), contenders=8, rounds=1)

    assert not result.atomic
    assert result.winners == (8,)


def test_the_stores_clock_is_read_from_an_object(store: ObjectStore) -> None:
    first = store_now(store)

    assert store_now(store) >= first
    assert list(store.list("")) == []


def test_local_objects_are_on_disk_before_they_have_a_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = open_store(f"file://{tmp_path}")
    events: list[str] = []
    fsync, link = os.fsync, os.link

    def noted_fsync(handle: int) -> None:
        events.append("folder" if os.path.isdir(f"/proc/self/fd/{handle}") else "bytes")
        fsync(handle)

    def noted_link(source: Path, target: Path) -> None:
        events.append("name")
        link(source, target)

    monkeypatch.setattr(os, "fsync", noted_fsync)
    monkeypatch.setattr(os, "link", noted_link)
    store.create("a/b", b"x")

    assert events[-3:] == ["bytes", "name", "folder"]
    assert events[:-3] == ["folder"] * len(events[:-3]), "the folders' own entries"
    assert len(events) > 3


def test_a_local_put_that_is_torn_leaves_no_object(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = open_store(f"file://{tmp_path}")
    monkeypatch.setattr(os, "fsync", lambda _: (_ for _ in ()).throw(OSError(28, "No space left on device")))

    with pytest.raises(Exception, match="No space left"):
        store.create("a", b"x" * 100)

    assert store.head("a") is None
    assert list(store.list("")) == []


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("ftp://x/y", "file://"),
        ("file://relative/path", "absolute"),
        ("/a/path", "file://"),
        ("s3://", "s3://"),
    ],
)
def test_urls_that_name_no_store_are_refused(url: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        open_store(url)


@pytest.mark.s3
def test_wrong_credentials_are_a_mistake_of_configuration(s3: servers.S3) -> None:
    options = {
        "endpoint": s3.endpoint,
        "access_key_id": s3.access_key,
        "secret_access_key": "wrong",
        "region": s3.region,
    }
    store = open_store(f"s3://{s3.create_bucket()}", options)

    with pytest.raises(ConfigError, match="refuses access"):
        store.create("a", b"")
