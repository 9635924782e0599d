"""What a fetch brings is unpacked by aiokafka, or was made so that it can be."""

from __future__ import annotations

import gzip
import tracemalloc

import cramjam
import pytest
from aiokafka.record.memory_records import MemoryRecords
from aiokafka.record.util import decode_varint
from hypothesis import given
from hypothesis import strategies as st

from driftline.errors import FrameError
from driftline.frames.reasons import Reason
from driftline.frames.unreadable import UNREADABLE, check_readable
from driftline.log.kafka.expanding import GZIP, LZ4, MAX_EXPANDED, NONE, SNAPPY, ZSTD
from driftline.log.kafka.records import MAX_PARTS, header, varint
from driftline.log.kafka.unpacking import readable
from tests.support.poison import BAD_NAME, framed, raw_batch, raw_record

CODECS = [NONE, GZIP, SNAPPY, LZ4, ZSTD]
PACKED = [GZIP, SNAPPY, LZ4, ZSTD]

Seen = tuple[int, bytes | None, tuple[tuple[str, bytes | None], ...]]


def unpacked(message_set: bytes) -> list[Seen]:
    """What aiokafka makes of a message set: offset, value, headers."""
    records, found = MemoryRecords(message_set), list[Seen]()
    while records.has_next():
        batch = records.next_batch()
        assert batch.validate_crc()
        found += [(record.offset, record.value, tuple(record.headers)) for record in batch]
    return found


def reason_of(seen: Seen) -> str:
    with pytest.raises(FrameError) as caught:
        check_readable(tuple((name, value or b"") for name, value in seen[2]))
    return caught.value.reason


def moved(batch: bytes, base: int) -> bytes:
    return base.to_bytes(8, "big") + batch[8:]


def test_what_aiokafka_can_unpack_stays_as_it_is() -> None:
    batch = raw_batch([raw_record(0, b"a", [(b"name", b"value")]), raw_record(1, b"b")])
    assert readable(batch) == batch


@pytest.mark.parametrize("codec", CODECS)
def test_a_header_name_that_is_not_utf8_marks_its_record_and_no_other(codec: int) -> None:
    records = [
        raw_record(0, b"a", [(b"name", b"value")]),
        raw_record(1, b"b", [(b"x", b"1"), (BAD_NAME, b"2"), (b"y", b"3")]),
        raw_record(2, b"c"),
    ]
    first, bad, last = unpacked(readable(raw_batch(records, codec)))
    assert first == (0, b"a", (("name", b"value"),))
    assert last == (2, b"c", ())
    assert bad[:2] == (1, b"b")
    assert bad[2] == (("x", b"1"), (UNREADABLE, b"bad_header " + BAD_NAME + b"=2"), ("y", b"3"))
    assert reason_of(bad) == Reason.BAD_HEADER


def test_batches_beside_a_bad_one_are_untouched() -> None:
    good, bad = raw_batch([raw_record(0, b"a")]), raw_batch([raw_record(0, b"b", [(BAD_NAME, b"")])])
    whole = readable(good + moved(bad, 1) + moved(good, 2))
    assert whole.startswith(good)
    assert whole.endswith(moved(good, 2))
    assert [seen[:2] for seen in unpacked(whole)] == [(0, b"a"), (1, b"b"), (2, b"a")]


def test_a_batch_cut_off_by_the_fetch_stays_behind_the_others() -> None:
    batch = raw_batch([raw_record(0, b"a")])
    assert readable(batch + batch[:-3]) == batch + batch[:-3]
    assert readable(batch[:-3]) == batch[:-3]


@pytest.mark.parametrize("codec", CODECS)
def test_a_batch_with_a_wrong_checksum_stays_as_it_is(codec: int) -> None:
    batch = bytearray(raw_batch([raw_record(0, b"a", [(BAD_NAME, b"")])], codec))
    batch[17] ^= 1
    assert readable(bytes(batch)) == batch


@pytest.mark.parametrize("codec", PACKED)
def test_a_batch_that_expands_too_far_is_one_record_at_its_last_offset(codec: int) -> None:
    bomb = raw_batch([raw_record(0, b"a"), raw_record(1, bytes(MAX_EXPANDED)), raw_record(2, b"c")], codec)
    (seen,) = unpacked(readable(bomb))
    assert seen[0] == 2
    assert seen[1] == bomb[61:]
    assert reason_of(seen) == Reason.OVERSIZED


@pytest.mark.parametrize("codec", PACKED)
def test_memory_stays_bounded_before_a_bomb(codec: int) -> None:
    bomb = raw_batch([raw_record(0, bytes(4 * MAX_EXPANDED))], codec)
    tracemalloc.start()
    try:
        readable(bomb)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 3 * MAX_EXPANDED


def test_a_fetch_of_many_batches_is_cut_once_enough_has_been_unpacked() -> None:
    one = raw_batch([raw_record(0, bytes(MAX_EXPANDED // 3))], ZSTD)
    assert [seen[0] for seen in unpacked(readable(b"".join(moved(one, at) for at in range(5))))] == [0, 1]


def test_a_record_of_too_many_headers_is_refused_with_its_batch() -> None:
    many = raw_batch([raw_record(0, b"", [(b"", b"")] * (3 * MAX_PARTS))])
    (seen,) = unpacked(readable(many))
    assert reason_of(seen) == Reason.OVERSIZED


@pytest.mark.parametrize("codec", PACKED)
def test_what_does_not_decompress_is_refused(codec: int) -> None:
    (seen,) = unpacked(readable(framed(b"\x82SNAPPY\0" + bytes(12), 1, codec)))
    assert reason_of(seen) == Reason.UNDECODABLE


def test_records_that_break_the_format_are_refused_with_their_batch() -> None:
    (seen,) = unpacked(readable(framed(raw_record(0, b"a")[:-1], 1)))
    assert reason_of(seen) == Reason.UNDECODABLE


def test_gzip_of_several_members_is_read_to_the_end() -> None:
    first, second = raw_record(0, b"a"), raw_record(1, b"b")
    batch = framed(gzip.compress(first) + gzip.compress(second), 2, GZIP)
    assert [seen[:2] for seen in unpacked(readable(batch))] == [(0, b"a"), (1, b"b")]


def test_snappy_without_blocks_is_read_too() -> None:
    batch = framed(bytes(cramjam.snappy.compress_raw(raw_record(0, b"a"))), 1, SNAPPY)
    assert [seen[:2] for seen in unpacked(readable(batch))] == [(0, b"a")]


@given(st.binary(max_size=300), st.integers(1, 4), st.sampled_from(CODECS))
def test_whatever_the_records_are_the_result_unpacks(body: bytes, count: int, codec: int) -> None:
    batch = framed(body, count, codec)
    seen = unpacked(readable(batch))
    assert len(seen) in (1, count)
    assert readable(batch) == readable(batch)


@given(st.lists(st.tuples(st.binary(max_size=4), st.binary(max_size=3)), max_size=4), st.sampled_from(CODECS))
def test_a_record_is_unreadable_exactly_when_a_name_is_not_text(
    headers: list[tuple[bytes, bytes]], codec: int
) -> None:
    (seen,) = unpacked(readable(raw_batch([raw_record(0, b"v", headers)], codec)))
    assert seen[:2] == (0, b"v")
    assert len(seen[2]) == len(headers)
    assert any(name == UNREADABLE for name, _ in seen[2]) == any(not _is_text(name) for name, _ in headers)


def _is_text(name: bytes) -> bool:
    try:
        name.decode()
    except UnicodeDecodeError:
        return False
    return True


@given(st.integers(-(1 << 62), 1 << 62))
def test_numbers_are_written_as_aiokafka_reads_them(number: int) -> None:
    data = bytearray(varint(number) + header(b"", b""))
    assert decode_varint(data, 0)[0] == number
