"""Events from a CSV file: timestamp, user, item.

Invariant: a file is read whole or refused, naming the file and the line; no row is
skipped silently. Rows that are out of order are sorted by time, stably.
"""

from __future__ import annotations

import csv
import gzip
import io
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from driftline.demo.events import Events, id_of
from driftline.errors import InputError

_GZIP_MAGIC = b"\x1f\x8b"
_COLUMNS = (("timestamp",), ("user", "user_id"), ("item", "item_id"))
_MAX_ID = (1 << 64) - 1
_MAX_TIME = (1 << 63) - 1


def read_csv(path: str | Path, limit: int | None = None) -> Events:
    """Return the first `limit` rows of a CSV file (all without it) as events.

    Comma-separated UTF-8, gzipped or not (told by its first bytes). With a header row the
    columns `timestamp`, `user` or `user_id`, `item` or `item_id` are found by name and
    others ignored; without one they are the first three. Timestamps are whole seconds. A
    user or item that is a decimal number below 2^64 is its own id; anything else is hashed
    (`driftline.demo.events.id_of`). Unsorted rows are sorted by time, stably.

    Raises InputError for a file that cannot be read, a malformed row (by file and line
    number) and a file without events.
    """
    path = Path(path)
    timestamps: list[int] = []
    users: list[int] = []
    items: list[int] = []
    try:
        with _open(path) as file:
            for when, user, item in _parse(path, csv.reader(file, strict=True)):
                if limit is not None and len(timestamps) >= limit:
                    break
                timestamps.append(when)
                users.append(user)
                items.append(item)
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: not UTF-8 text ({error.reason}); convert it first") from error
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise InputError(f"{path}: broken gzip file ({error}); copy it again") from error
    except OSError as error:
        raise InputError(f"{path}: {error.strerror or error}") from error
    if not timestamps:
        raise InputError(f"{path}: no events; expected rows of timestamp,user,item")
    return Events.by_time(timestamps, users, items)


def _open(path: Path) -> IO[str]:
    with path.open("rb") as file:
        packed = file.read(2) == _GZIP_MAGIC
    # utf-8-sig: spreadsheets put a byte order mark in front of the first column's name.
    if packed:
        return io.TextIOWrapper(gzip.open(path, "rb"), encoding="utf-8-sig", newline="")
    return path.open(encoding="utf-8-sig", newline="")


def _parse(path: Path, reader: Iterator[list[str]]) -> Iterator[tuple[int, int, int]]:
    columns = (0, 1, 2)
    first = True
    number = 0
    while True:
        try:
            row = next(reader, None)
        except csv.Error as error:
            raise InputError(f"{path}, line {number + 1}: {error}") from error
        if row is None:
            return
        number = reader.line_num  # type: ignore[attr-defined]
        if not row:
            continue  # an empty line, usually the last
        if first:
            first = False
            if not _is_number(row[0]) and any(cell.strip().lower() == "timestamp" for cell in row):
                columns = _header(path, number, row)
                continue
        yield _event(path, number, row, columns)


def _header(path: Path, number: int, row: list[str]) -> tuple[int, int, int]:
    names = [cell.strip().lower() for cell in row]
    found = [next((names.index(n) for n in choice if n in names), None) for choice in _COLUMNS]
    for choice, column in zip(_COLUMNS, found, strict=True):
        if column is None:
            raise InputError(f"{path}, line {number}: no column {' or '.join(choice)} in the header {row}")
    timestamp, user, item = (column for column in found if column is not None)
    return timestamp, user, item


def _event(path: Path, number: int, row: list[str], columns: tuple[int, int, int]) -> tuple[int, int, int]:
    if len(row) <= max(columns):
        raise InputError(f"{path}, line {number}: {len(row)} columns, expected timestamp,user,item: {row}")
    when, user, item = (row[column].strip() for column in columns)
    if not _is_number(when) or abs(int(when)) > _MAX_TIME:
        raise InputError(f"{path}, line {number}: timestamp {when!r} is not a whole number of seconds")
    if not user or not item:
        raise InputError(f"{path}, line {number}: empty {'item' if user else 'user'}")
    return int(when), _id(user), _id(item)


def _is_number(text: str) -> bool:
    digits = text.strip().removeprefix("-")
    return len(digits) <= 20 and digits.isascii() and digits.isdigit()


def _id(text: str) -> int:
    # Only the canonical form: "7" and "007" are two names, so they must be two ids.
    if len(text) <= 20 and text.isascii() and text.isdigit() and (text == "0" or text[0] != "0"):
        value = int(text)
        if value <= _MAX_ID:
            return value
    return id_of(text)
