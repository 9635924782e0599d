"""Events come whole and in order of time, or the error names the file, the line and the way out."""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from driftline.demo import sources
from driftline.demo.events import Events, id_of
from driftline.errors import InputError


def write(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


# --- csv


def test_a_header_row_names_the_columns_in_any_order(tmp_path: Path) -> None:
    events = sources.csv(write(tmp_path / "e.csv", "item_id,note,timestamp,user\n7,x,100,3\n8,y,101,4\n"))

    assert events.timestamps.tolist() == [100, 101]
    assert events.users.tolist() == [3, 4]
    assert events.items.tolist() == [7, 8]


def test_without_a_header_the_first_three_columns_count(tmp_path: Path) -> None:
    events = sources.csv(write(tmp_path / "e.csv", "100,3,7,ignored\n101,4,8,ignored\n"))

    assert (events.timestamps.tolist(), events.users.tolist(), events.items.tolist()) == (
        [100, 101],
        [3, 4],
        [7, 8],
    )


def test_gzip_is_told_by_its_magic_not_by_the_name(tmp_path: Path) -> None:
    path = tmp_path / "events.csv"
    path.write_bytes(gzip.compress(b"timestamp,user,item\n1,2,3\n"))

    assert len(sources.csv(path)) == 1


def test_canonical_numbers_are_their_own_ids_and_anything_else_is_hashed(tmp_path: Path) -> None:
    events = sources.csv(write(tmp_path / "e.csv", f"1,ann,{2**64 - 1}\n2,007,{2**64}\n3,7,-1\n"))

    assert events.users.tolist() == [id_of("ann"), id_of("007"), 7]
    assert events.items.tolist() == [2**64 - 1, id_of(str(2**64)), id_of("-1")]


def test_unsorted_rows_are_sorted_by_time_and_ties_keep_their_order(tmp_path: Path) -> None:
    events = sources.csv(write(tmp_path / "e.csv", "5,1,1\n3,1,2\n5,1,3\n3,1,4\n"))

    assert events.timestamps.tolist() == [3, 3, 5, 5]
    assert events.items.tolist() == [2, 4, 1, 3]


def test_a_limit_takes_the_first_rows(tmp_path: Path) -> None:
    assert sources.csv(write(tmp_path / "e.csv", "1,1,1\n2,2,2\n3,3,3\n"), limit=2).items.tolist() == [1, 2]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("timestamp,user,item\n1,2,3\n\n1,2\n", r"e\.csv, line 4: 2 columns"),
        ("1,2,3\nsoon,2,3\n", r"e\.csv, line 2: timestamp 'soon'"),
        ("1.5,2,3\n", r"e\.csv, line 1: timestamp '1\.5'"),
        (f"{2**63},2,3\n", r"e\.csv, line 1: timestamp"),
        ("1,,3\n", r"e\.csv, line 1: empty user"),
        ("1,2, \n", r"e\.csv, line 1: empty item"),
        ('1,2,3\n1,2,"open\n', r"e\.csv, line 2: "),
        ("timestamp,user,thing\n1,2,3\n", r"e\.csv, line 1: no column item or item_id"),
        ("", r"e\.csv: no events"),
        ("timestamp,user,item\n", r"e\.csv: no events"),
    ],
)
def test_a_malformed_file_is_refused_by_name_and_line(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        sources.csv(write(tmp_path / "e.csv", text))


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"none\.csv: No such file"):
        sources.csv(tmp_path / "none.csv")


def test_a_gzip_file_cut_short_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "e.csv.gz"
    path.write_bytes(gzip.compress(b"1,2,3\n" * 1000)[:-10])

    with pytest.raises(InputError, match="broken gzip file"):
        sources.csv(path)


def test_bytes_that_are_not_utf8_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "e.csv"
    path.write_bytes(b"1,\xff\xfe,3\n")

    with pytest.raises(InputError, match="not UTF-8"):
        sources.csv(path)


@given(
    st.lists(
        st.tuples(st.integers(0, 2**40), st.integers(0, 2**64 - 1), st.integers(0, 2**64 - 1)), min_size=1
    )
)
def test_what_is_written_is_read_back_in_stable_order_of_time(
    tmp_path_factory: pytest.TempPathFactory, rows: list[tuple[int, int, int]]
) -> None:
    path = tmp_path_factory.mktemp("csv") / "e.csv"
    events = sources.csv(write(path, "".join(f"{t},{u},{i}\n" for t, u, i in rows)))

    read = list(zip(events.timestamps.tolist(), events.users.tolist(), events.items.tolist(), strict=True))
    assert read == sorted(rows, key=lambda row: row[0])


# --- events


def test_the_id_of_a_name_is_part_of_the_format() -> None:
    assert id_of("README.md") == 0x91D03C47F82D0F76
    assert id_of("") == 0xB4B2797457A0A6E4


def test_events_that_go_back_in_time_are_refused() -> None:
    ids = np.zeros(2, np.uint64)
    with pytest.raises(InputError, match="go back"):
        Events(np.array([2, 1]), ids, ids)


def test_columns_of_different_length_are_refused() -> None:
    with pytest.raises(InputError, match="one length"):
        Events(np.array([1]), np.zeros(2, np.uint64), np.zeros(1, np.uint64))
