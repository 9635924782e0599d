"""Judges Python and the libraries against what this release was made and tested with.

Invariant: pure but for `installed`; the ranges are those of pyproject.toml, and a test
holds them to it. Outside of a range nothing was tested: the stream services lean on names
inside faust-streaming and aiokafka.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version

from driftline.doctor.findings import Finding, fail, ok, warn

PYTHON = ((3, 11), (3, 14))
"""First version that works, first that is not tested."""


@dataclass(frozen=True, slots=True)
class Range:
    """Versions from `first` on, below `end` where one is known to be needed."""

    first: str
    end: str | None = None


LIBRARIES: Mapping[str, Range] = {
    "aiohttp": Range("3.9"),
    "aiokafka": Range("0.13", "0.15"),
    "cramjam": Range("2.8"),
    "faust-streaming": Range("0.15.2", "0.16"),
    "numpy": Range("1.26"),
    "obstore": Range("0.8"),
    "orjson": Range("3.10"),
    "prometheus-client": Range("0.20"),
    "pydantic": Range("2.7"),
    "pydantic-settings": Range("2.4"),
    "redis": Range("5.2"),
    "rich": Range("13.7"),
    "typer": Range("0.20"),
}


def installed() -> dict[str, str | None]:
    """Return the version of each library, None where it is not installed."""
    found: dict[str, str | None] = {}
    for name in LIBRARIES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = None
    return found


def judge(python: tuple[int, int], libraries: Mapping[str, str | None]) -> Iterator[Finding]:
    """Yield the findings on the versions found."""
    told = ".".join(map(str, python))
    if PYTHON[0] <= python < PYTHON[1]:
        yield ok("versions", "Python", told)
    elif python < PYTHON[0]:
        yield fail("versions", "Python", told, "use 3.11, 3.12 or 3.13")
    else:
        yield warn("versions", "Python", f"{told}, not tested", "use 3.11, 3.12 or 3.13")
    wrong = [finding for name, found in libraries.items() if (finding := _library(name, found)) is not None]
    yield from wrong
    if not wrong:
        yield ok("versions", "libraries", ", ".join(f"{name} {found}" for name, found in libraries.items()))


def _library(name: str, found: str | None) -> Finding | None:
    wanted = LIBRARIES[name]
    remedy = f"pip install '{name}>={wanted.first}{f',<{wanted.end}' if wanted.end else ''}'"
    if found is None:
        return fail("versions", name, "not installed", remedy)
    if numbers(found) < numbers(wanted.first):
        return fail("versions", name, f"{found}, older than {wanted.first}", remedy)
    if wanted.end is not None and numbers(found) >= numbers(wanted.end):
        return fail("versions", name, f"{found}, not below {wanted.end}", remedy)
    return None


def numbers(text: str) -> tuple[int, ...]:
    """Return the leading numbers of a version.

    Examples
    --------
    >>> numbers("0.15.2rc1"), numbers("8.1")
    ((0, 15, 2), (8, 1))
    """
    leading = re.match(r"\d+(?:\.\d+)*", text)
    return tuple(int(part) for part in leading[0].split(".")) if leading else ()
