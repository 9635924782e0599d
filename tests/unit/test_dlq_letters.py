from __future__ import annotations

import numpy as np
import pytest

from driftline.cli.dlq_command import hexdump, parse_since
from driftline.dlq import letters as form
from driftline.dlq.letters import At, Letter, Mark, Place, Status, fold, metadata, read_record
from driftline.dlq.replaying import producer_name
from driftline.errors import FrameError, InputError
from driftline.frames.events import Gradient, Origin, write_event
from driftline.frames.reasons import Reason
from driftline.frames.tensors import HEADER_LIMIT
from driftline.log import MAX_RECORD_BYTES, Headers, Outgoing, Record, record_size
from driftline.shard.plan import Rejected
from driftline_services.aggregator.dead_letters import dead_letter

PLACE = Place(3, 1042)
FRAME = write_event(
    Gradient("t", 3, Origin(b"p" * 16, 0, 7), np.arange(2, dtype=np.uint64), np.ones((2, 4), np.float32))
)
RECORD = Record(PLACE.offset, 1000, None, FRAME, (("traceparent", b"00-1-2-01"), ("x", b"\xff")))


def stored(record: Outgoing, offset: int = 5) -> Record:
    return Record(offset, 2000, record.key, record.value, record.headers)


def refused(record: Record = RECORD) -> Record:
    rejected = Rejected(record, Reason.WRONG_DIM, "wrong_dim: no \u00e9")
    return stored(dead_letter("t", PLACE.partition, rejected))


def letter_in(record: Record) -> Letter:
    found = read_record(record, PLACE.partition)
    assert isinstance(found, Letter)
    return found


def test_what_the_aggregator_writes_is_read_back_whole() -> None:
    record = refused()
    assert letter_in(record) == Letter(
        PLACE, "wrong_dim", "wrong_dim: no \u00e9", 2000, 1000, len(FRAME), (b"p" * 16).hex(), 5
    )
    assert form.original_headers(record) == (("traceparent", b"00-1-2-01"), ("x", b"\xff"))
    assert record.value == FRAME


@pytest.mark.parametrize(
    ("value", "key", "headers"),
    [
        (bytes(MAX_RECORD_BYTES - 100), None, ()),
        (b"", b"k" * (MAX_RECORD_BYTES - 100), ()),
        (b"", None, (("h", bytes(MAX_RECORD_BYTES - 100)),)),
    ],
    ids=["value", "key", "headers"],
)
def test_a_letter_always_fits_into_the_log(value: bytes, key: bytes | None, headers: Headers) -> None:
    record = refused(Record(PLACE.offset, 1000, key, value, headers))
    assert record_size(Outgoing(record.value, record.key, record.headers)) <= MAX_RECORD_BYTES
    letter = letter_in(record)
    assert letter.cut
    assert letter.size == len(value)


def test_a_message_cut_in_the_middle_of_a_letter_is_still_text() -> None:
    rejected = Rejected(Record(0, 0, None, b""), Reason.UNDECODABLE, "x" + "\u00e9" * 5000)
    found = read_record(stored(dead_letter("t", 0, rejected)), 0)
    assert isinstance(found, Letter)
    assert found.message.startswith("x\u00e9")


def test_a_letter_written_twice_is_one_and_a_mark_settles_it() -> None:
    first, second = letter_in(refused()), letter_in(refused())
    mark = read_record(stored(form.dropped(PLACE), 6), PLACE.partition)
    assert isinstance(mark, Mark)
    assert fold([first, second]) == {PLACE: first}
    assert fold([first, mark])[PLACE].status is Status.DROPPED
    assert fold([first, mark, second])[PLACE].status is Status.DROPPED


def test_a_replay_mark_says_where_the_frame_is_now() -> None:
    mark = read_record(stored(form.replayed(PLACE, At(3, 2000))), PLACE.partition)
    assert mark == Mark(PLACE, Status.REPLAYED, At(3, 2000))


def test_letters_of_two_generations_of_a_log_are_two() -> None:
    rejected = Rejected(RECORD, Reason.WRONG_DIM, "no")
    old, new = (stored(dead_letter("t", PLACE.partition, rejected, gen)) for gen in (1, 2))
    assert (old.key, new.key) == (b"3:1042", b"2:3:1042")
    mark = read_record(stored(form.dropped(letter_in(new).place)), PLACE.partition)
    assert isinstance(mark, Mark)
    found = fold([letter_in(old), letter_in(new), mark])
    assert {str(place): letter.status for place, letter in found.items()} == {
        "3:1042": Status.OPEN,
        "2:3:1042": Status.DROPPED,
    }
    assert Place.parse("2:3:1042") == letter_in(new).place


def test_replays_of_two_generations_are_two_producers() -> None:
    names = {producer_name(Place(3, 1042, generation)) for generation in (1, 2, 3)}
    assert names == {"dlq:3:1042", "dlq:2:3:1042", "dlq:3:3:1042"}


@pytest.mark.parametrize("key", [None, b"", b"x", b"3:", b"4:1042", "\u0663:1".encode(), b"3:1042:1"])
def test_what_is_no_letter_of_the_partition_is_passed_over(key: bytes | None) -> None:
    record = refused()
    assert read_record(Record(5, 2000, key, record.value, record.headers), PLACE.partition) is None


@pytest.mark.parametrize(
    "text",
    ["", "3", "3:", ":1", "-1:2", "3:1042 ", "1:3:1042", "0:3:1042", "a:b", "\u0663:1", "3:" + "9" * 20],
)
def test_a_place_that_is_none_is_named(text: str) -> None:
    with pytest.raises(InputError, match="PARTITION:OFFSET"):
        Place.parse(text)


def test_the_metadata_of_a_torn_frame_can_be_read() -> None:
    assert metadata(FRAME[:-20])["producer"] == (b"p" * 16).hex()


@pytest.mark.parametrize(
    "value",
    [b"", b"x", FRAME[:40], bytes(100), b"\x02" + bytes(7) + b"[]", b"\xff" * (2 * HEADER_LIMIT)],
)
def test_where_there_is_no_metadata_there_is_none(value: bytes) -> None:
    assert metadata(value) == {}


def test_times_are_ago_or_iso() -> None:
    assert parse_since("2h", 10_000.0) == 2_800_000
    assert parse_since("1970-01-01", 0.0) == 0
    assert parse_since("1970-01-01T01:00:00+01:00", 0.0) == 0
    with pytest.raises(InputError, match="15m"):
        parse_since("yesterday", 0.0)


def test_a_hexdump_shows_bytes_and_text() -> None:
    assert list(hexdump(b"abc\0" * 5))[1] == "00000010  61 62 63 00" + " " * 36 + "  abc."


def test_every_reason_has_a_meaning_and_is_its_own_code() -> None:
    assert all(reason.meaning and str(reason) == reason.value for reason in Reason)
    assert FrameError(Reason.FORGED, "x").reason == "forged"
    assert str(FrameError(Reason.FORGED, "x")) == "forged: x"


def test_codes_that_were_given_out_stay() -> None:
    given = {
        "truncated", "undecodable", "schema", "unknown_type", "forged", "oversized", "unknown_table",
        "wrong_shard", "no_spec", "quarantined", "wrong_dim", "unsorted_ids", "duplicate_ids", "foreign_ids",
        "non_finite", "bad_op", "bad_spec", "unsupported",
    }  # fmt: skip
    assert given <= set(map(str, Reason)), "append-only: dead letters and dashboards outlive a release"
