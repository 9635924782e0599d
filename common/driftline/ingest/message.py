"""A message of the ingest topic: JSON in, checked arrays out.

    {"table": "items", "ids": [7, "18446744073709551615"], "grads": [[0.1, -2], [3e-4, 0]]}
    {"table": "items", "type": "upsert", "id": 7, "row": [0.5, 1.0]}

Invariant: what comes out is what the numbers say and nothing else: an id is a whole
number exactly, a value is read as a float64 and rounded once to float32. Whatever
is not understood is refused, never ignored: a misspelt key would train wrongly.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from itertools import chain
from typing import TypeVar, cast

import numpy as np
import orjson
from numpy.typing import NDArray

from driftline.client.splitting import as_matrix
from driftline.errors import FrameError, InputError
from driftline.frames.events import GRADIENT, UPSERT
from driftline.frames.reasons import Reason
from driftline.log import MAX_RECORD_BYTES

MAX_MESSAGE = MAX_RECORD_BYTES
"""Bytes of JSON. A compressed batch may hold records that are larger than the log's own limit."""

_MAX_ID = (1 << 64) - 1
_DECIMAL = re.compile(r"[0-9]{1,20}")
_PLURAL = {GRADIENT: ("ids", "grads"), UPSERT: ("ids", "rows")}
_SINGULAR = {GRADIENT: ("id", "grad"), UPSERT: ("id", "row")}
_OPTIONAL = {GRADIENT: frozenset({"lr", "read_pos"}), UPSERT: frozenset[str]()}
_Wanted = TypeVar("_Wanted")


@dataclass(frozen=True, slots=True)
class Message:
    """Gradients or rows of one table, as sent: ids in the order given, duplicates included."""

    table: str
    kind: str  # GRADIENT or UPSERT
    ids: NDArray[np.uint64]  # (n,), n ≥ 1
    rows: NDArray[np.float32]  # (n, width): gradients, or rows; finite
    lr: np.float32 | None = None
    read: Mapping[int, int] = field(default_factory=dict)  # shard -> LSN


def parse_message(data: bytes) -> Message:
    """Return the message in a record's value.

    Raises FrameError: `oversized`, `undecodable` (not a JSON object), `unsupported` (a type other
    than gradient and upsert), `bad_message` (keys, types, ids), `wrong_dim`, `non_finite`.
    """
    if len(data) > MAX_MESSAGE:
        raise FrameError(Reason.OVERSIZED, f"{len(data)} bytes, a message has at most {MAX_MESSAGE}")
    try:
        body = orjson.loads(data)  # refuses NaN, Infinity and nesting deeper than 1024
    except orjson.JSONDecodeError as error:
        raise FrameError(Reason.UNDECODABLE, f"not JSON: {error}") from None
    if not isinstance(body, dict):
        raise FrameError(Reason.UNDECODABLE, f"a message is a JSON object, this is {_json_type(body)}")
    table = _of_type(body, "table", str, "a text")
    kind = body.get("type", GRADIENT)
    if kind not in (GRADIENT, UPSERT):
        raise FrameError(Reason.UNSUPPORTED, f"type {kind!r}: {GRADIENT!r} or {UPSERT!r}")
    ids, rows = _items(body, kind)
    numbers = _ids(ids)
    return Message(table, kind, numbers, _matrix(rows, len(numbers)), _lr(body), _read_pos(body))


def _items(body: Mapping[str, object], kind: str) -> tuple[list[object], list[object]]:
    """Return ids and rows as lists, also of a message with one row, once its keys are known to be right."""
    single = "id" in body
    id_key, rows_key = names = (_SINGULAR if single else _PLURAL)[kind]
    unknown = body.keys() - {"table", "type", *names} - _OPTIONAL[kind]
    if unknown:
        also = sorted(_OPTIONAL[kind])
        raise FrameError(
            Reason.BAD_MESSAGE,
            f"key {min(unknown)!r} does not belong to this {kind}: "
            f"'table', 'type', {id_key!r}, {rows_key!r}{''.join(f', {name!r}' for name in also)}",
        )
    rows = _of_type(body, rows_key, list, "a list")
    return ([body["id"]], [rows]) if single else (_of_type(body, id_key, list, "a list"), rows)


def _ids(values: list[object]) -> NDArray[np.uint64]:
    if not values:
        raise FrameError(Reason.BAD_MESSAGE, "'ids' is empty")
    kinds = set(map(type, values))
    if kinds == {int}:
        numbers = cast("list[int]", values)
    elif kinds <= {int, str}:
        numbers = [value if isinstance(value, int) else _decimal(cast(str, value)) for value in values]
    else:
        bad = next(value for value in values if type(value) not in (int, str))
        raise _bad_id(bad)
    for extreme in (min(numbers), max(numbers)):
        if not 0 <= extreme <= _MAX_ID:
            raise _bad_id(extreme)
    return np.array(numbers, np.uint64)


def _decimal(text: str) -> int:
    if not _DECIMAL.fullmatch(text):
        raise _bad_id(text)
    return int(text)


def _bad_id(value: object) -> FrameError:
    return FrameError(
        Reason.BAD_MESSAGE,
        f"id {_shown(value)} is not a whole number from 0 to 2^64 - 1, as a number or a decimal text",
    )


def _matrix(rows: list[object], count: int) -> NDArray[np.float32]:
    if len(rows) != count:
        raise FrameError(Reason.BAD_MESSAGE, f"{count} ids but {len(rows)} rows")
    if set(map(type, rows)) != {list}:
        raise FrameError(Reason.BAD_MESSAGE, "each row is a list of numbers")
    lists = cast("list[list[object]]", rows)
    widths = set(map(len, lists))
    if len(widths) != 1:
        raise FrameError(Reason.WRONG_DIM, f"rows have from {min(widths)} to {max(widths)} numbers")
    flat = list(chain.from_iterable(lists))
    others = set(map(type, flat)) - {int, float}
    if others:
        bad = next(value for value in flat if type(value) in others)
        raise FrameError(Reason.BAD_MESSAGE, f"{_shown(bad)} is not a number")
    wide = np.array(flat, np.float64).reshape(count, widths.pop())
    try:
        return as_matrix("rows", wide, *wide.shape)
    except InputError as error:
        raise FrameError(Reason.NON_FINITE, str(error)) from None


def _lr(body: Mapping[str, object]) -> np.float32 | None:
    value = body.get("lr")
    if "lr" not in body:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise FrameError(Reason.BAD_MESSAGE, f"'lr' is {_shown(value)}, not a number")
    with np.errstate(over="ignore"):
        rate = np.float32(value)
    if not 0 <= rate < np.inf:
        raise FrameError(Reason.BAD_MESSAGE, f"'lr' is {_shown(value)}, not a finite float32 of at least 0")
    return rate


def _read_pos(body: Mapping[str, object]) -> dict[int, int]:
    if "read_pos" not in body:
        return {}
    given = _of_type(body, "read_pos", dict, "an object of shard: position")
    read: dict[int, int] = {}
    for shard, at in given.items():
        position = _decimal(at) if isinstance(at, str) else at
        if not _DECIMAL.fullmatch(shard) or type(position) is not int or not 0 <= position <= _MAX_ID:
            raise FrameError(Reason.BAD_MESSAGE, f"'read_pos' has {_shown({shard: at})}: shard to position")
        read[int(shard)] = position
    return read


def _of_type(body: Mapping[str, object], name: str, kind: type[_Wanted], text: str) -> _Wanted:
    value = body.get(name)
    if not isinstance(value, kind):
        found = _json_type(value) if name in body else "missing"
        raise FrameError(Reason.BAD_MESSAGE, f"{name!r} is {text}; here it is {found}")
    return value


def _json_type(value: object) -> str:
    names: Collection[tuple[type, str]] = (
        (bool, "a truth value"),
        (dict, "an object"),
        (list, "a list"),
        (str, "a text"),
        (int, "a number"),
        (float, "a number"),
    )
    return next((name for kind, name in names if isinstance(value, kind)), "null")


def _shown(value: object) -> str:
    return repr(value)[:60]
