"""Objects of the version store read back to the bit, and no byte of them changes unnoticed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray

from driftline.errors import DamagedObjectError, StoreFormatError
from driftline.versions import Manifest, ObjectStore, Place, Repository, TableManifest, fsck, open_store
from driftline.versions.cache import ObjectCache
from driftline.versions.dictionary import ChunkRef, IdDictionary, to_merge, write_chunk
from driftline.versions.documents import pack, read_plain, unpack, write_plain
from driftline.versions.manifest import PartManifest, read_manifest, write_manifest
from driftline.versions.owners import OwnerMap, write_owner_map
from driftline.versions.pages import PAGE, ObjectRef, Sealed, seal
from driftline.versions.segments import Segment, SegmentData, write_segment
from tests.support.object_store_fake import FakeObjects
from tests.support.versioning import Clock, Live, opened, read_contents

JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=10,
)


def cached(*sealed: Sealed) -> ObjectCache:
    store = FakeObjects(lambda: 0.0)
    for each in sealed:
        store.create(each.ref.key, each.data)
    return ObjectCache(store)


@st.composite
def segments(draw: st.DrawFn) -> SegmentData:
    ordinals = sorted(draw(st.sets(st.integers(0, 2**32 - 1), min_size=1, max_size=40)))
    cut = draw(st.integers(0, len(ordinals)))
    chosen = draw(st.permutations(ordinals))
    live, dead = sorted(chosen[:cut]), sorted(chosen[cut:])
    n, dim, size = len(live), draw(st.integers(1, 40)), draw(st.integers(0, 3))
    return SegmentData(
        np.array(live, np.uint32),
        draw(hnp.arrays("<u8", n)),
        draw(hnp.arrays("<f4", (n, dim))),
        draw(hnp.arrays("<f4", (n, size))),
        np.array(dead, np.uint32),
        draw(hnp.arrays("<u8", len(dead))),
    )


@given(segments())
def test_segments_read_back_to_the_same_bits(data: SegmentData) -> None:
    entry, sealed = write_segment("seg", "items", 0, "op-1", data)
    segment = Segment(cached(sealed), entry)

    at = np.arange(len(data.ordinals))
    assert segment.ordinals.tobytes() == data.ordinals.tobytes()
    assert segment.lsns(at).tobytes() == data.lsn.tobytes()
    assert segment.rows(at).tobytes() == data.rows.tobytes()
    assert segment.state(at).tobytes() == data.state.tobytes()
    assert segment.dead.tobytes() == data.dead.tobytes()
    assert segment.dead_lsn.tobytes() == data.dead_lsn.tobytes()
    assert segment.find(data.ordinals.astype(np.int64)).tolist() == at.tolist()
    assert segment.kills(data.dead.astype(np.int64)).all()
    assert not segment.kills(data.ordinals.astype(np.int64)).any()
    assert (entry.first, entry.last) == (
        min([*data.ordinals.tolist(), *data.dead.tolist()]),
        max([*data.ordinals.tolist(), *data.dead.tolist()]),
    )


@given(st.lists(st.dictionaries(st.integers(0, 2**64 - 1), st.none(), min_size=1, max_size=20), max_size=6))
def test_the_latest_ordinal_of_an_id_is_found(births: list[dict[int, None]]) -> None:
    chunks: list[ChunkRef] = []
    sealed = []
    latest: dict[int, int] = {}
    ordinal = 0
    for number, ids in enumerate(births):
        ordinals = np.arange(ordinal, ordinal + len(ids), dtype=np.uint32)
        latest |= dict(zip(ids, ordinals.tolist(), strict=True))
        ordinal += len(ids)
        chunk, each = write_chunk(f"dict/{number}", "items", 0, np.array(list(ids), np.uint64), ordinals)
        chunks.append(chunk)
        sealed.append(each)
    dictionary = IdDictionary(cached(*sealed), chunks)

    known = np.array(list(latest), np.uint64)
    assert dictionary.find(known).tolist() == list(latest.values())
    assert (dictionary.find(np.array([7], np.uint64)) >= 0).all() == (7 in latest)
    assert set(dictionary.ids(ordinal).tolist()) >= set(latest)


@given(st.lists(st.integers(1, 10_000), max_size=200))
def test_a_dictionary_has_few_chunks(births: list[int]) -> None:
    chunks: list[ChunkRef] = []
    for rows in births:
        merged = to_merge(chunks, rows)
        rows += sum(each.rows for each in chunks[len(chunks) - merged :])  # noqa: PLW2901
        chunks = [*chunks[: len(chunks) - merged], ChunkRef(ObjectRef("", 0, 0, ""), rows, 0)]

    assert sum(each.rows for each in chunks) == sum(births)
    assert len(chunks) <= 1 + np.log2(max(sum(births), 1))


@settings(max_examples=30)
@given(st.data(), st.sampled_from([3, 255, 256, 1000]), st.sampled_from([0, 1, 65_536, 70_000]))
def test_owner_maps_read_back(data: st.DataObject, count: int, ordinals: int) -> None:
    codes = (
        np.random.default_rng(data.draw(st.integers(0, 99)))
        .integers(0, count + 1, ordinals)
        .astype(np.uint16)
    )
    entry, sealed = write_owner_map("own", "items", 0, codes, [f"seg/{each}" for each in range(count)])
    owners = OwnerMap(cached(sealed), entry)

    some = np.array([0, 1, 65_535, 65_536, 69_999, 70_000, -1], np.int64)
    expected = [codes[each] if 0 <= each < ordinals else 0 for each in some.tolist()]
    assert owners.codes(some).tolist() == expected
    assert owners.all().tobytes() == codes.tobytes()
    assert len(owners.segments) == count


@given(st.dictionaries(st.text(max_size=5), JSON, max_size=4))
def test_documents_read_back(body: dict[str, object]) -> None:
    assert read_plain("key", write_plain(body)) == body
    assert orjson.loads(unpack("key", pack(orjson.dumps(body)))) == body


@given(
    st.dictionaries(st.text(max_size=5), JSON, max_size=3),
    st.dictionaries(
        st.text(min_size=1, max_size=5), st.floats(allow_nan=False, allow_infinity=False), max_size=3
    ),
    hnp.arrays("<u8", 3),
    hnp.arrays("u1", (2, 16)),
)
def test_manifests_read_back(
    metadata: dict[str, object],
    figures: dict[str, float],
    seqs: NDArray[np.uint64],
    names: NDArray[np.uint8],
) -> None:
    place = Place.of({"next": 3, "fp": "x", "quarantined": {"ab": 1}}, {"pseq": seqs, "pname": names}, 9)
    table = TableManifest(3, 1, "schema", (PartManifest(place, 0, 0),))
    manifest = Manifest(
        "V-R-1.0", "op-1", "main", 0, 1.5, {"items": table}, metadata=metadata, figures=figures
    )

    again = read_manifest(manifest.key, write_manifest(manifest))

    assert again == manifest
    arrays = again.tables["items"].parts[0].place.arrays()
    assert arrays["pseq"].tobytes() == seqs.tobytes()
    assert arrays["pname"].shape == (2, 16)


@given(st.binary(max_size=200))
def test_whatever_is_no_manifest_is_damage(data: bytes) -> None:
    with pytest.raises((DamagedObjectError, StoreFormatError)):
        read_manifest("versions/V-R-1.0/m-000000", data)


def test_a_manifest_of_a_newer_format_is_refused_with_a_way_out() -> None:
    manifest = Manifest("V-R-1.0", "op-1", "main", 0, 0.0, {})
    newer = write_manifest(manifest).replace(b"driftline/1 ", b"driftline/2 ", 1)

    with pytest.raises(StoreFormatError, match=r"driftline/2.*upgrade"):
        read_manifest(manifest.key, newer)


# -- damage: every byte


def flipped(data: bytes, at: int) -> bytes:
    return data[:at] + bytes([data[at] ^ (1 << at % 8)]) + data[at + 1 :]


def history(store: FakeObjects, clock: Clock) -> list[Manifest]:
    """Small versions with segments, tombstones, several dictionary chunks and an owner map."""
    repository = opened(store, clock)
    live = Live(shards=1)
    versions: list[Manifest] = []
    live.upsert(range(8))
    for number in range(6):
        live.upsert([number, 20 + number])
        live.delete([19 + number])
        dense = repository.attach(b"dense")
        versions.append(
            live.commit(
                repository, f"op-{number}", versions[-1] if versions else None, attachments={"dense": dense}
            )
        )
    return versions


def found_by_fsck(store: FakeObjects, clock: Clock) -> set[str]:
    try:
        return {each.object for each in fsck(opened(store, clock))}
    except DamagedObjectError as error:  # format.json: the folder is not opened at all
        return {error.key}


def read_all(repository: Repository, version: str) -> None:
    manifest = repository.manifest(version)
    for attachment in manifest.attachments.values():
        repository.read_attachment(attachment)
    read_contents(repository, manifest)


def test_each_single_byte_of_a_segment_is_covered() -> None:
    data = SegmentData(
        np.arange(20, dtype=np.uint32),
        np.arange(20, dtype=np.uint64),
        np.ones((20, 9), np.float32),
        np.ones((20, 1), np.float32),
        np.array([50], np.uint32),
        np.array([9], np.uint64),
    )
    entry, sealed = write_segment("seg", "items", 0, "op-1", data)
    store = FakeObjects(lambda: 0.0)
    for at in range(len(sealed.data)):
        store.objects["seg"] = (flipped(sealed.data, at), 0.0)
        with pytest.raises(DamagedObjectError, match="object seg"):
            ObjectCache(store).open(entry.ref).check()


def test_each_single_byte_of_a_manifest_is_covered() -> None:
    manifest = Manifest("V-R-1.0", "op-1", "main", 0, 0.0, {}, metadata={"model": "two towers"})
    data = write_manifest(manifest)
    for at in range(len(data)):
        with pytest.raises((DamagedObjectError, StoreFormatError), match=manifest.key):
            read_manifest(manifest.key, flipped(data, at))


def test_every_flipped_byte_of_every_object_is_found_by_fsck() -> None:
    clock = Clock()
    store = FakeObjects(clock)
    history(store, clock)
    kinds: dict[str, str] = {}
    for key in store.objects:  # of each kind the latest: the others are alike
        parts = key.split("/")
        kinds["/".join(parts[:1] if parts[0] != "tables" else parts[:3])] = key
    kinds.pop("heads")  # empty
    assert {
        "format.json",
        "versions",
        "attachments",
        "tables/items/seg",
        "tables/items/dict",
        "tables/items/own",
    } == set(kinds)

    for key in kinds.values():
        data, modified = store.objects[key]
        for at in range(0, len(data), max(1, len(data) // 300)):
            store.objects[key] = (flipped(data, at), modified)
            assert key in found_by_fsck(store, clock), f"byte {at} of {key}"
        store.objects[key] = (data, modified)
    assert fsck(opened(store, clock)) == []


def test_every_flipped_byte_is_found_by_a_read_that_touches_it() -> None:
    clock = Clock()
    store = FakeObjects(clock)
    last = history(store, clock)[-1]

    for key in [last.key, *last.objects()]:
        data, modified = store.objects[key]
        for at in range(0, len(data), max(1, len(data) // 100)):
            store.objects[key] = (flipped(data, at), modified)
            with pytest.raises((DamagedObjectError, StoreFormatError), match=key):
                read_all(opened(store, clock), last.version)
        store.objects[key] = (data, modified)


def test_a_flipped_byte_is_named_with_its_page_and_both_checksums(tmp_path: Path) -> None:
    store: ObjectStore = open_store(f"file://{tmp_path}")
    rows = np.arange(40_000, dtype=np.float32).reshape(-1, 4)
    sealed = seal("tables/x", {"type": "segment"}, {"rows": rows})
    store.create("tables/x", flipped(sealed.data, 3 * PAGE + 5))
    mapped = ObjectCache(store).open(sealed.ref)

    mapped.need("rows", np.array([0]), np.array([100]))
    with pytest.raises(DamagedObjectError, match=r"tables/x .* bytes 12288 to 16384: expected CRC-32 \w{8}"):
        mapped.tensor("rows")


@pytest.mark.parametrize("change", [lambda data: data[:-1], lambda data: data + b"x", lambda _: b""])
@pytest.mark.parametrize("kind", ["file", "fetched"])
def test_an_object_of_another_size_is_damage(tmp_path: Path, kind: str, change: object) -> None:
    assert callable(change)
    store: ObjectStore = open_store(f"file://{tmp_path}") if kind == "file" else FakeObjects(lambda: 0.0)
    sealed = seal("x", {}, {"rows": np.arange(5000, dtype=np.float32)})
    store.create("x", change(sealed.data))

    cut = change(sealed.data)
    if kind == "fetched" and len(cut) > len(sealed.data):
        return  # what was written is all there
    with pytest.raises(DamagedObjectError, match="object x"):
        ObjectCache(store).open(sealed.ref).check()


# -- the cache


def test_only_what_is_touched_is_fetched(tmp_path: Path) -> None:
    fetched: list[tuple[int, int]] = []

    class Counting(FakeObjects):
        def get_ranges(self, key, starts, ends):  # type: ignore[no-untyped-def]
            fetched.extend(zip(starts, ends, strict=True))
            return super().get_ranges(key, starts, ends)

    store = Counting(lambda: 0.0)
    sealed = seal("x", {}, {"rows": np.arange(1 << 20, dtype=np.float32).reshape(-1, 16)})
    store.create("x", sealed.data)
    mapped = ObjectCache(store, tmp_path).open(sealed.ref)

    at = np.array([5, 6, 900, 60_000])
    mapped.need("rows", at, at + 1)

    assert mapped.frame.tensors["rows"][at][:, 0].tolist() == (at * 16).tolist()
    assert sum(end - start for start, end in fetched) < len(sealed.data) // 10
    before = len(fetched)
    mapped.need("rows", at, at + 1)
    assert len(fetched) == before


def test_a_cache_that_was_damaged_or_half_filled_heals(tmp_path: Path) -> None:
    store = FakeObjects(lambda: 0.0)
    rows = np.arange(1 << 16, dtype=np.float32).reshape(-1, 16)
    sealed = seal("x", {}, {"rows": rows})
    store.create("x", sealed.data)
    ObjectCache(store, tmp_path).open(sealed.ref).check()
    (file,) = tmp_path.iterdir()
    file.write_bytes(flipped(file.read_bytes(), 100_000))

    assert ObjectCache(store, tmp_path).open(sealed.ref).tensor("rows").tobytes() == rows.tobytes()


def test_a_cache_keeps_to_its_bytes(tmp_path: Path) -> None:
    store = FakeObjects(lambda: 0.0)
    cache = ObjectCache(store, tmp_path, limit=200_000)
    for number in range(10):
        sealed = seal(f"x{number}", {}, {"rows": np.zeros(20_000, np.float32)})
        store.create(sealed.ref.key, sealed.data)
        cache.open(sealed.ref).check()

    assert sum(each.stat().st_size for each in tmp_path.iterdir()) <= 200_000


def test_a_wide_row_spans_pages() -> None:
    rows = np.random.default_rng(1).standard_normal((50, 8192)).astype(np.float32)
    count = len(rows)
    data = SegmentData(
        np.arange(count, dtype=np.uint32),
        np.zeros(count, np.uint64),
        rows,
        np.zeros((count, 1), np.float32),
        np.zeros(0, np.uint32),
        np.zeros(0, np.uint64),
    )
    entry, sealed = write_segment("seg", "items", 0, "op-1", data)
    at = np.array([49, 3, 17])

    assert Segment(cached(sealed), entry).rows(at).tobytes() == rows[at].tobytes()
