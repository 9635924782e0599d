"""The object store of the versions: whether it answers, keeps its promise, has room, and is tidied.

Invariant: nothing is made but scratch objects below probe/, which are removed; where there is no
store yet on this machine, none is made. Verdicts are pure.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote, urlsplit

from driftline import clock
from driftline.doctor.findings import Finding, fail, ok, warn
from driftline.errors import DamagedObjectError, ObjectMissingError
from driftline.versions import ObjectStore, RaceResult, race_create_if_absent
from driftline.versions.documents import read_plain
from driftline.versions.repository import FORMAT
from driftline.versions.stores import store_now

AREA = "store"
_LITTLE, _NEXT_TO_NOTHING = 4 << 30, 512 << 20
_MOST_AHEAD = 5.0
"""Seconds that the clocks may differ: stores tell the time of an object in whole seconds."""
_DAY = 86400.0
_UNTIDY = 30 * _DAY


@dataclass(frozen=True, slots=True)
class Space:
    """Room on the file system of a store that is a directory."""

    free: int  # bytes
    total: int


@dataclass(frozen=True, slots=True)
class StoreFacts:
    """A store as it showed itself."""

    url: str
    race: RaceResult
    ahead: float  # seconds of the store's clock before ours
    format: tuple[str, int, str] | None  # kind, number, group; None: nothing there yet
    versions: int = 0
    removed: int = 0  # versions with a tombstone
    collected: float | None = None  # seconds since the last collection
    space: Space | None = None
    damaged: str = ""  # what is wrong with format.json


def missing_directory(url: str) -> Path | None:
    """Return the directory of a file:// store that does not exist yet, None for any other store."""
    parts = urlsplit(url)
    path = Path(unquote(parts.path))
    return path if parts.scheme == "file" and not path.is_dir() else None


def collect(store: ObjectStore, now: clock.Clock) -> StoreFacts:
    """Return what a store shows. Blocks. Raises ObjectStoreUnavailableError, ConfigError."""
    race = race_create_if_absent(store)
    ahead = store_now(store) - now()
    found, damaged = None, ""
    try:
        body = read_plain("format.json", store.get("format.json"))
        found = (str(body.get("kind")), _number(body.get("format")), str(body.get("group")))
    except ObjectMissingError:
        found = None
    except DamagedObjectError as error:
        damaged = str(error)
    keys = [info.key for info in store.list("versions")]
    names = {key.split("/")[1] for key in keys}
    removed = {key.split("/")[1] for key in keys if key.endswith("/tomb")}
    marks = [info.modified for info in store.list("gc")]
    return StoreFacts(
        store.url,
        race,
        ahead,
        found,
        len(names - removed),
        len(removed),
        now() + ahead - max(marks) if marks else None,
        _space(store.url),
        damaged,
    )


def judge(facts: StoreFacts, group: str) -> Iterator[Finding]:
    """Yield the findings on a store."""
    yield ok(AREA, "reachable", facts.url)
    yield _atomic(facts.race)
    yield _format(facts, group)
    if abs(facts.ahead) > _MOST_AHEAD:
        direction = "ahead of" if facts.ahead > 0 else "behind"
        found = f"{abs(facts.ahead):,.0f} s {direction} ours"
        yield warn(AREA, "clock", found, "run NTP on both: pins, and references by time, go by our clock")
    else:
        yield ok(AREA, "clock", f"within {_MOST_AHEAD:g} s of ours")
    if facts.space is not None:
        yield _room(facts.space)
    yield _tidiness(facts)


def _atomic(race: RaceResult) -> Finding:
    if race.atomic:
        rounds = len(race.winners)
        return ok(AREA, "create-if-absent", f"atomic: one writer won each of {rounds} races")
    most = max(race.winners)
    found = f"{most} writers made the same object" if most != 1 else "what the winner wrote did not stay"
    return fail(
        AREA,
        "create-if-absent",
        found,
        "use another store: in this one a version could be overwritten; S3 needs conditional writes",
    )


def _format(facts: StoreFacts, group: str) -> Finding:
    if facts.damaged:
        return fail(AREA, "format", facts.damaged, "`driftline fsck` lists what else is damaged")
    if facts.format is None:
        return ok(AREA, "format", "no versions yet: made with the first one")
    kind, number, owner = facts.format
    if (kind, number) != ("versions", FORMAT):
        found = f"{kind} of format {number}; this release reads versions of format {FORMAT}"
        return fail(AREA, "format", found, "upgrade driftline here, or use another folder")
    if owner != group:
        found = f"versions of group {owner!r}, not of {group!r}"
        return fail(AREA, "format", found, "give each group a folder of its own: correct store_url")
    return ok(AREA, "format", f"{FORMAT}, {facts.versions} versions")


def _room(space: Space) -> Finding:
    found = f"{space.free / 2**30:,.1f} GiB free of {space.total / 2**30:,.1f}"
    if space.free < _NEXT_TO_NOTHING:
        return fail(AREA, "space", found, "make room, or `driftline gc`: versions cannot be stored")
    if space.free < _LITTLE:
        return warn(AREA, "space", found, "make room, or `driftline gc --older-than 30d`")
    return ok(AREA, "space", found)


def _tidiness(facts: StoreFacts) -> Finding:
    remedy = "run `driftline gc` daily: removed versions still take their room"
    if facts.collected is None:
        if facts.removed:
            found = f"never, and {facts.removed} versions are removed"
            return warn(AREA, "last collection", found, remedy)
        return ok(AREA, "last collection", "never; nothing was removed either")
    found = f"{facts.collected / _DAY:,.1f} days ago"
    if facts.collected > _UNTIDY:
        return warn(AREA, "last collection", found, remedy)
    return ok(AREA, "last collection", found)


def _space(url: str) -> Space | None:
    parts = urlsplit(url)
    if parts.scheme != "file":
        return None
    usage = shutil.disk_usage(Path(unquote(parts.path)))
    return Space(usage.free, usage.total)


def _number(value: object) -> int:
    return value if isinstance(value, int) else 0
