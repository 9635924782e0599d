"""What a dead-letter topic holds: letters, and marks that say what became of them.

Invariant: a letter is known by where the refused record was, `partition:offset` of the
gradients log, which is its key; behind a relog the log's generation stands before it, because
offsets start over. Written twice (a crash between it and the commit that
passes its record) it is one. A mark has the key of its letter and settles it for good.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Self

import orjson

from driftline.errors import InputError
from driftline.frames import headers
from driftline.frames.tensors import HEADER_LIMIT
from driftline.log import Headers, Outgoing, Record
from driftline.shard.position import FIRST_GENERATION

REASON, MESSAGE = headers.REASON, headers.MESSAGE
PARTITION, OFFSET, TIMESTAMP = "dl-partition", "dl-offset", "dl-timestamp"
GENERATION = "dl-generation"
CUT = "dl-cut"  # size of a record that was too large to be kept whole
KEY = "dl-key"  # the refused record's own key, if it had one
ORIGINAL = "dl-original-"  # in front of the refused record's own headers
DROPPED, REPLAYED = "dl-dropped", "dl-replayed"

_PLACE = re.compile(r"(?:(\d{1,10}):)?(\d{1,10}):(\d{1,19})")


class Status(StrEnum):
    """What became of a letter."""

    OPEN = "open"
    REPLAYED = "replayed"
    DROPPED = "dropped"


@dataclass(frozen=True, slots=True, order=True)
class Place:
    """Where a refused record was: in the gradients log of its table, or in the ops or ingest topic."""

    partition: int
    offset: int
    generation: int = FIRST_GENERATION  # of the log; of an ingest topic, its incarnation + 1

    def __str__(self) -> str:
        at = f"{self.partition}:{self.offset}"
        return at if self.generation == FIRST_GENERATION else f"{self.generation}:{at}"

    @classmethod
    def parse(cls, text: str) -> Self:
        """Return the place written as `[generation:]partition:offset`. Raises InputError.

        Examples
        --------
        >>> Place.parse("3:1042"), str(Place.parse("2:3:1042"))
        (Place(partition=3, offset=1042, generation=1), '2:3:1042')
        """
        place = cls.read(text)
        if place is None:
            raise InputError(
                f"{text!r} is no dead letter: write PARTITION:OFFSET, as `driftline dlq ls` does"
            )
        return place

    @classmethod
    def read(cls, text: str) -> Self | None:
        """Return the place written in `text`; None if it is none, or not as `str` writes it."""
        match = _PLACE.fullmatch(text) if text.isascii() else None
        if match is None:
            return None
        generation = FIRST_GENERATION if match[1] is None else int(match[1])
        if match[1] is not None and generation <= FIRST_GENERATION:
            return None  # a second name of the same letter
        return cls(int(match[2]), int(match[3]), generation)


@dataclass(frozen=True, slots=True)
class At:
    """Where a frame is in the gradients log of a table, of whatever generation that is."""

    partition: int
    offset: int

    def __str__(self) -> str:
        return f"{self.partition}:{self.offset}"


@dataclass(frozen=True, slots=True)
class Letter:
    """A refused record, without its bytes; these are at `at` in the dead-letter topic."""

    place: Place
    reason: str
    message: str
    refused: int  # ms, log time of the letter
    sent: int  # ms, log time of the refused record
    size: int  # bytes of the refused record
    producer: str | None  # hex; None where not even the header can be read
    at: int
    cut: bool = False  # only the head was kept
    status: Status = Status.OPEN
    replayed_at: At | None = None


@dataclass(frozen=True, slots=True)
class Mark:
    """Says that a letter is settled, and how."""

    place: Place
    status: Status
    replayed_at: At | None = None


def read_record(record: Record, partition: int | None) -> Letter | Mark | None:
    """Return what a record of a dead-letter topic is; None if it is neither letter nor mark.

    `partition` is where letters of that topic say that they come from; None where all come together.
    """
    named = dict(record.headers)
    place = Place.read((record.key or b"").decode("latin-1"))
    if place is None or partition not in (None, place.partition):
        return None
    if DROPPED in named:
        return Mark(place, Status.DROPPED)
    if REPLAYED in named:
        again = Place.read(named[REPLAYED].decode("latin-1"))
        return Mark(place, Status.REPLAYED, At(again.partition, again.offset) if again else None)
    if REASON not in named:
        return None
    return Letter(
        place=place,
        reason=_text(named[REASON]),
        message=_text(named.get(MESSAGE, b"")),
        refused=record.timestamp,
        sent=_number(named.get(TIMESTAMP), record.timestamp),
        size=_number(named.get(CUT), len(record.value)),
        producer=metadata(record.value).get("producer"),
        at=record.offset,
        cut=CUT in named,
    )


def fold(found: Iterable[Letter | Mark], known: Mapping[Place, Letter] | None = None) -> dict[Place, Letter]:
    """Return each letter once, as the marks behind it leave it; `known` is what came before `found`."""
    letters = dict(known or {})
    for each in found:
        earlier = letters.get(each.place)
        if isinstance(each, Letter):
            letters.setdefault(each.place, each)
        elif earlier is not None:
            letters[each.place] = replace(earlier, status=each.status, replayed_at=each.replayed_at)
    return letters


def dropped(place: Place) -> Outgoing:
    """Return the mark of a letter that is put aside."""
    return Outgoing(b"", str(place).encode(), ((DROPPED, b"1"),))


def replayed(place: Place, again: At) -> Outgoing:
    """Return the mark of a letter whose frame was published again, at `again`."""
    return Outgoing(b"", str(place).encode(), ((REPLAYED, str(again).encode()),))


def original_headers(record: Record) -> Headers:
    """Return the headers that the refused record had."""
    found = ((name, value) for name, value in record.headers if name.startswith(ORIGINAL))
    return tuple((name.removeprefix(ORIGINAL), value) for name, value in found)


def metadata(value: bytes) -> Mapping[str, str]:
    """Return the metadata of a frame, also of one that is torn or breaks a rule; empty if unreadable."""
    end = 8 + min(int.from_bytes(value[:8], "little"), HEADER_LIMIT)
    try:
        header = orjson.loads(value[8:end])
    except orjson.JSONDecodeError:
        return {}
    found = header.get("__metadata__") if isinstance(header, dict) else None
    if not isinstance(found, dict):
        return {}
    return {name: text for name, text in found.items() if isinstance(text, str)}


def _number(text: bytes | None, default: int) -> int:
    return int(text) if text is not None and text.isdigit() else default


def _text(data: bytes) -> str:
    return data.decode("utf-8", "replace")
