"""Reads very many short decimal fields at once.

Invariant: accepts exactly what `b"%d,%d" % …` writes for numbers below 2^64 (leading
zeros aside), and says of anything else that it is damaged; never guesses.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

_COMMA, _NEWLINE, _ZERO = 44, 10, 48
_DIGITS = 20  # of 2^64 - 1
_TEN_TO_19 = np.uint64(10**19)


def parse(values: Sequence[bytes], columns: int) -> tuple[NDArray[np.uint64], ...]:
    """Return the columns of `values`, each of which is `columns` numbers with commas in between.

    Raises ValueError with the first value that is not that.
    """
    if not values:
        return tuple(np.empty(0, np.uint64) for _ in range(columns))
    text = np.frombuffer(b"\n".join(values) + b"\n", np.uint8)
    found = _parsed(text, len(values), columns)
    if found is None:
        raise ValueError(f"{_first_bad(values, columns)!r} is not {columns} numbers")
    return found


def _parsed(text: NDArray[np.uint8], rows: int, columns: int) -> tuple[NDArray[np.uint64], ...] | None:
    digits = text - np.uint8(_ZERO)  # what is below "0" wraps around
    ends = np.flatnonzero(digits > 9)  # of numbers: everything that is not a digit must end one
    if len(ends) != rows * columns:
        return None
    between = text[ends].reshape(rows, columns)
    if (between[:, :-1] != _COMMA).any() or (between[:, -1] != _NEWLINE).any():
        return None
    begins = np.concatenate([[0], ends[:-1] + 1]).reshape(rows, columns)
    lengths = ends.reshape(rows, columns) - begins
    if lengths.min() < 1 or lengths.max() > _DIGITS:
        return None
    found: list[NDArray[np.uint64]] = []
    for n in range(columns):
        numbers = _numbers(digits, begins[:, n], lengths[:, n])
        if numbers is None:
            return None
        found.append(numbers)
    return tuple(found)


def _numbers(
    digits: NDArray[np.uint8], begins: NDArray[np.intp], lengths: NDArray[np.intp]
) -> NDArray[np.uint64] | None:
    """Return the numbers at `begins`, digit by digit over all of them; None if one exceeds 64 bits."""
    total = np.zeros(len(begins), np.uint64)
    shortest, longest = int(lengths.min()), int(lengths.max())
    for place in range(shortest):
        total = total * np.uint64(10) + digits[begins + place]
    for place in range(shortest, longest):
        longer = np.flatnonzero(lengths > place)
        total[longer] = total[longer] * np.uint64(10) + digits[begins[longer] + place]
    if longest == _DIGITS:  # 10^19 … 2^64 - 1: begins with 1, and what wrapped around is below 10^19
        full = lengths == _DIGITS
        if ((digits[begins] != 1) | (total < _TEN_TO_19))[full].any():
            return None
    return total


def _first_bad(values: Sequence[bytes], columns: int) -> bytes:
    shape = re.compile(rb"\d{1,20}" + rb",\d{1,20}" * (columns - 1))
    for value in values:
        if shape.fullmatch(value) is None or any(int(part) >> 64 for part in value.split(b",")):
            return value
    return b""
