"""How people name a version, the same everywhere.

    items@V-N-1.2     a version of one table
    V-N-1.2           a version of the whole group
    items@exp~2       the second version before the head of branch exp
    release-7         what a tag points to
    latest            the head of the main branch
    2026-11-21T10:00  the newest version of main at that time (UTC unless it says otherwise)

Single rows also go back to a backup in memory, `backup-17`, which is no version.

Invariant: the forms exclude each other: a branch or tag may not be called like a
version, a backup, a time or `latest`.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime

from driftline.errors import InputError, VersionHeldError
from driftline.versions.naming import is_version_name
from driftline.versions.stores import checked_name

LATEST = "latest"
_REFERENCE = re.compile(r"(?:(?P<table>[^@~]+)@)?(?P<base>[^@~]+)(?:~(?P<back>[0-9]{1,6})?)?")
_BACKUP = re.compile(r"backup-([1-9][0-9]{0,15})")
_TIME = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}([T ].*)?")


@dataclass(frozen=True, slots=True)
class Reference:
    """A parsed reference."""

    table: str | None  # None: all tables of the group
    base: str  # version, branch, tag, `latest` or a time
    back: int = 0  # so many first parents before it

    def __str__(self) -> str:
        table = f"{self.table}@" if self.table is not None else ""
        return f"{table}{self.base}" + (f"~{self.back}" if self.back else "")


def parse_reference(text: str) -> Reference:
    """Return the reference in `text`; `x~` is `x~1`. Raises InputError."""
    found = _REFERENCE.fullmatch(text)
    if found is None:
        raise InputError(
            f"reference {text!r}: [TABLE@]VERSION|BRANCH|TAG|latest|TIME[~N], e.g. items@V-N-1.2"
        )
    back = int(found["back"] or 1) if "~" in text else 0
    return Reference(found["table"], found["base"], back)


def time_of(text: str) -> float | None:
    """Return the seconds since the epoch that `text` names, None if it does not look like a time.

    Raises InputError for one that looks like a time but is none.
    """
    if not _TIME.fullmatch(text):
        return None
    try:
        parsed = datetime.fromisoformat(text)
    except ValueError as error:
        raise InputError(f"time {text!r}: {error}; write 2026-11-21T10:00 or 2026-11-21") from None
    return (parsed if parsed.tzinfo is not None else parsed.replace(tzinfo=UTC)).timestamp()


def backup_name(op: int) -> str:
    """Return how the backup of barrier `op` is called."""
    return f"backup-{op}"


def backup_of(text: str) -> int | None:
    """Return the op whose backup `text` names, None if it names none.

    Examples
    --------
    >>> backup_of("backup-17"), backup_of("V-R-1.0")
    (17, None)
    """
    found = _BACKUP.fullmatch(text)
    return int(found[1]) if found is not None else None


def checked_label(what: str, name: str) -> str:
    """Return the name of a branch or tag. Raises InputError, VersionHeldError."""
    checked_name(what, name)
    if is_version_name(name) or name == LATEST or _TIME.fullmatch(name) or _BACKUP.fullmatch(name):
        raise VersionHeldError(
            f"{what} {name!r}: that is how a version, a backup, a time or {LATEST!r} is called"
        )
    return name


def nearest(name: str, known: Iterable[str], count: int = 3) -> tuple[str, ...]:
    """Return the names that resemble `name` most, best first."""
    return tuple(difflib.get_close_matches(name, list(known), count, 0.5))
