"""Columns of whole numbers in few bytes: to the bit whatever they are; damage is named."""

from __future__ import annotations

import contextlib
import zlib
from pathlib import Path
from typing import Any

import cramjam
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from driftline.errors import DamagedObjectError
from driftline.versions import open_store
from driftline.versions.cache import ObjectCache
from driftline.versions.packing import MOST, pack, unpack
from driftline.versions.pages import PAGE, check_run, page_sums, seal

U64 = st.lists(st.integers(0, 2**64 - 1), min_size=1, max_size=200)


@given(U64, st.booleans(), st.sampled_from([np.uint32, np.uint64]))
def test_what_is_packed_comes_back_to_the_bit(numbers: list[int], rising: bool, kind: type) -> None:
    values: NDArray[Any] = np.array(sorted(set(numbers)) if rising else numbers, np.uint64).astype(kind)
    assert unpack(pack(values), len(values), np.dtype(kind)).tobytes() == values.tobytes()


def test_ordinals_of_a_changed_fiftieth_take_less_than_a_byte_each() -> None:
    chosen = np.sort(np.random.default_rng(0).choice(1_000_000, 20_000, replace=False)).astype(np.uint32)
    assert len(pack(chosen)) < 20_000


@given(st.binary(max_size=40), st.integers(1, 50))
def test_bytes_that_are_no_column_are_refused_or_some_column(data: bytes, count: int) -> None:
    with contextlib.suppress(ValueError, cramjam.DecompressionError):
        assert len(unpack(np.frombuffer(data, np.uint8), count, np.dtype(np.uint64))) == count


def object_of(tmp_path: Path, rows: int) -> tuple[ObjectCache, object, NDArray[np.uint32]]:
    store = open_store(f"file://{tmp_path / 'store'}")
    ordinals = np.arange(rows, dtype=np.uint32) * 3
    values = np.random.default_rng(1).random((rows, 4), np.float32)
    sealed = seal(
        "tables/t/seg/0/x",
        {"type": "segment"},
        {"lsn": np.full(rows, 9, np.uint64), "ord": ordinals, "rows": values},
    )
    store.create(sealed.ref.key, sealed.data)
    return ObjectCache(store), sealed.ref, ordinals


@pytest.mark.parametrize("rows", [1, 1000, MOST, MOST + 1])
def test_short_columns_are_packed_and_long_ones_searched_where_they_are(tmp_path: Path, rows: int) -> None:
    cache, ref, ordinals = object_of(tmp_path, rows)
    opened = cache.open(ref)  # type: ignore[arg-type]
    assert np.array_equal(opened.tensor("ord"), ordinals)
    assert np.array_equal(opened.rows("lsn", np.array([0, rows - 1])), np.array([9, 9], np.uint64))
    assert ("packed" in opened.frame.metadata) == (rows <= MOST)
    assert opened.frame.tensors["rows"].flags.aligned


@given(st.integers(1, 40), st.integers(0, PAGE), st.data())
def test_a_stretch_is_checked_as_its_pages_are(pages: int, last: int, data: st.DataObject) -> None:
    body = np.random.default_rng(pages).bytes((pages - 1) * PAGE + max(last, 1))
    sums = page_sums(memoryview(body))
    assert check_run(memoryview(body), sums, 5).tolist() == []
    place = data.draw(st.integers(0, len(body) - 1))
    harmed = bytearray(body)
    harmed[place] ^= 1 << data.draw(st.integers(0, 7))
    assert check_run(memoryview(harmed), sums, 5).tolist() == [5 + place // PAGE]


def test_a_long_stretch_has_the_crc_that_its_pages_make() -> None:
    body = np.random.default_rng(0).bytes(700 * PAGE)
    assert check_run(memoryview(body), page_sums(memoryview(body)), 0).tolist() == []
    assert zlib.crc32(body) != 0


def test_a_packed_column_that_does_not_unpack_is_named(tmp_path: Path) -> None:
    store = open_store(f"file://{tmp_path / 'store'}")
    metadata = {"type": "segment", "packed": "ord:U32:7"}
    sealed = seal(
        "tables/t/seg/0/x", metadata, {"rows": np.ones((7, 2), np.float32), "ord": np.zeros(0, np.uint32)}
    )
    store.create(sealed.ref.key, sealed.data)
    with pytest.raises(DamagedObjectError, match="column ord"):
        ObjectCache(store).open(sealed.ref).tensor("ord")
