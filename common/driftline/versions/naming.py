"""Names of versions, and which name a version may have by its lineage [EM3].

Invariant: the names that a version may take follow from its parent's name and the
scenario of its data alone, in a fixed order; so whoever tries them in that order
meets a version it has committed before, and never commits it twice.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count

from driftline.errors import InputError

FUSED = "R"  # the scenario of all scenarios together
_SCENARIO = re.compile(r"[A-Z0-9]{1,8}")
_NAME = re.compile(r"V-([A-Z0-9]{1,8})-(0|[1-9][0-9]{0,8})\.(0|[1-9][0-9]{0,8})")


@dataclass(frozen=True, slots=True, order=True)
class VersionName:
    """`V-<scenario>-<major>.<minor>`."""

    scenario: str
    major: int
    minor: int

    def __str__(self) -> str:
        return f"V-{self.scenario}-{self.major}.{self.minor}"

    @classmethod
    def parse(cls, text: str) -> VersionName:
        """Return the name in `text`; raises InputError."""
        found = _NAME.fullmatch(text)
        if found is None:
            raise InputError(f"version name {text!r}: V-<scenario>-<major>.<minor>, e.g. V-W-1.0")
        return cls(found[1], int(found[2]), int(found[3]))


def is_version_name(text: str) -> bool:
    """Return whether `text` has the form of a version's name."""
    return _NAME.fullmatch(text) is not None


def checked_scenario(scenario: str) -> str:
    """Return `scenario`; raises InputError if it is no scenario code."""
    if not _SCENARIO.fullmatch(scenario):
        raise InputError(f"scenario {scenario!r}: 1 to 8 capitals or digits, {FUSED} for all together")
    return scenario


def minor_names(parent: VersionName) -> Iterator[VersionName]:
    """Yield the names of a version of its parent's training run: same dense layers, next minor."""
    for minor in count(parent.minor + 1):
        yield VersionName(parent.scenario, parent.major, minor)


def major_names(parent: VersionName | None, scenario: str) -> Iterator[VersionName]:
    """Yield the names of the first version of a run, a dense part or a dimension, best first.

    Without a parent major 1; from the fused line into a scenario the parent's major; else the
    parent's major + 1; a major that is taken is left to whoever has it.
    """
    checked_scenario(scenario)
    if parent is None:
        first = 1
    elif parent.scenario == FUSED and scenario != FUSED:
        first = parent.major
    else:
        first = parent.major + 1
    for major in count(first):
        yield VersionName(scenario, major, 0)
