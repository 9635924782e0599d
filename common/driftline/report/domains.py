"""Domains of rows, as a file of the user's says, and how changes are spread over them [EM12].

Invariant: a file that says two things of one id, or nothing that can be read, is refused with its
line; every row is in exactly one domain, those that the file does not know in one of their own.
"""

from __future__ import annotations

import csv
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from driftline.errors import InputError

Ids = NDArray[np.uint64]
Doubles = NDArray[np.float64]
UNKNOWN = "not in the file"
OTHERS = "all others"
MOST = 12
"""Domains told apart; the others are shown as one."""


@dataclass(frozen=True, slots=True, eq=False)
class Domains:
    """The domain of each id."""

    ids: Ids  # (n,) ascending
    codes: NDArray[np.int64]  # (n,) place in `names`
    names: tuple[str, ...]

    def of(self, ids: Ids) -> NDArray[np.int64]:
        """Return the domain (n,) of each id; len(names) for one that is not known."""
        if not len(self.ids):
            return np.full(len(ids), len(self.names), np.int64)
        at = np.minimum(np.searchsorted(self.ids, ids), len(self.ids) - 1)
        return np.where(self.ids[at] == ids, self.codes[at], len(self.names))

    def most(self, ids: Ids, count: int = MOST) -> Domains:
        """Return the `count` domains that most of `ids` are in told apart, the rest as one; by size."""
        sizes = np.bincount(self.of(ids), minlength=len(self.names) + 1)[:-1]
        order = np.lexsort((np.arange(len(sizes)), -sizes))
        kept = order[:count]
        if len(kept) == len(order):
            names, place = tuple(self.names[each] for each in order), np.argsort(order)
        else:
            names = (*(self.names[each] for each in kept), OTHERS)
            place = np.full(len(order), len(kept))
            place[kept] = np.arange(len(kept))
        return Domains(self.ids, place[self.codes] if len(place) else self.codes, names)


@dataclass(frozen=True, slots=True)
class Spread:
    """A domain in both versions."""

    name: str
    before: int
    after: int
    changed: int
    added: int
    removed: int


def spread(domains: Domains, before: Ids, after: Ids, changed: Ids) -> list[Spread]:
    """Return how rows of two versions are spread over the domains; the unknown last, if there are any."""
    names = (*domains.names, UNKNOWN)

    def counted(ids: Ids) -> list[int]:
        return [int(each) for each in np.bincount(domains.of(ids), minlength=len(names))]

    columns = zip(
        names,
        counted(before),
        counted(after),
        counted(changed),
        counted(np.setdiff1d(after, before, assume_unique=True)),
        counted(np.setdiff1d(before, after, assume_unique=True)),
        strict=True,
    )
    found = [Spread(*column) for column in columns]
    return found if found[-1].before or found[-1].after else found[:-1]


def read_domains(path: Path) -> Domains:
    """Return what a CSV file of lines `id,domain` says; a first line `id,…` is its heading.

    Raises InputError naming the line.
    """
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            return _made(_pairs(str(path), csv.reader(file)))
    except (OSError, UnicodeDecodeError) as error:
        said = error.strerror if isinstance(error, OSError) else "is not UTF-8"
        raise InputError(f"domains {path}: {said}") from error


def _pairs(name: str, lines: Iterable[list[str]]) -> Iterator[tuple[int, str]]:
    said: dict[int, str] = {}
    for number, line in enumerate(lines, 1):
        cells = [cell.strip() for cell in line]
        if not any(cells) or (number == 1 and cells[0].lower() == "id"):
            continue
        text = cells[0]
        if len(cells) != 2 or not text.isascii() or not text.isdigit() or int(text) >= 2**64 or not cells[1]:
            raise InputError(f"domains {name}, line {number}: {','.join(line)!r}: write id,domain")
        row, domain = int(text), cells[1]
        if said.setdefault(row, domain) != domain:
            raise InputError(f"domains {name}, line {number}: id {row} is in {said[row]!r} and in {domain!r}")
    return iter(said.items())


def _made(pairs: Iterator[tuple[int, str]]) -> Domains:
    found = list(pairs)
    names = tuple(dict.fromkeys(domain for _, domain in found))
    place = {name: number for number, name in enumerate(names)}
    ids = np.array([row for row, _ in found], np.uint64)
    codes = np.array([place[domain] for _, domain in found], np.int64)
    order = np.argsort(ids)
    return Domains(ids[order], codes[order], names)
