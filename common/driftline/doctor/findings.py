"""What the doctor says: findings, and the exit status they come to.

Invariant: a finding names what was looked at, the value found there and, unless all is
well, the way out; none holds a secret.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from enum import StrEnum


class Severity(StrEnum):
    """How bad a finding is."""

    OK = "ok"
    WARN = "warn"  # works; data or service is less safe than it could be
    FAIL = "fail"  # does not work, or loses data


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at."""

    severity: Severity
    area: str  # "kafka", "redis a"
    what: str
    found: str
    remedy: str = ""
    unchecked: bool = False  # the rest of the area could not be looked at


@dataclass(frozen=True, slots=True)
class Report:
    """All findings, in the order of the checks."""

    findings: tuple[Finding, ...]

    @property
    def exit_status(self) -> int:
        """0: nothing fails; 1: something fails; 2: something could not be checked, so more may fail."""
        if any(each.unchecked for each in self.findings):
            return 2
        return 1 if any(each.severity is Severity.FAIL for each in self.findings) else 0

    def to_json(self) -> dict[str, object]:
        """Return the report as `--json` prints it."""
        return {
            "status": self.exit_status,
            "findings": [asdict(each) for each in self.findings],
        }


def ok(area: str, what: str, found: str) -> Finding:
    """Return a finding that all is well."""
    return Finding(Severity.OK, area, what, found)


def warn(area: str, what: str, found: str, remedy: str) -> Finding:
    """Return a finding that something is less safe than it could be."""
    return Finding(Severity.WARN, area, what, found, remedy)


def fail(area: str, what: str, found: str, remedy: str) -> Finding:
    """Return a finding that something does not work or loses data."""
    return Finding(Severity.FAIL, area, what, found, remedy)


def unchecked(area: str, what: str, found: str, remedy: str) -> Finding:
    """Return a finding that something could not be looked at."""
    return Finding(Severity.FAIL, area, what, found, remedy, True)


@dataclass(frozen=True, slots=True)
class Trouble:
    """What a verdict on one of several like things says, before like troubles are told as one."""

    severity: Severity
    what: str
    found: str
    remedy: str


def together(area: str, troubles: Iterable[tuple[str, Trouble]]) -> Sequence[Finding]:
    """Return one finding per trouble, naming everything that has it, in order of first occurrence.

    Examples
    --------
    >>> lone = Trouble(Severity.WARN, "replicas", "1", "make it 3")
    >>> [each.what for each in together("kafka", [("a.ops", lone), ("b.ops", lone)])]
    ['replicas: a.ops, b.ops']
    """
    named: dict[Trouble, list[str]] = {}
    for name, trouble in troubles:
        named.setdefault(trouble, []).append(name)
    return [
        Finding(each.severity, area, f"{each.what}: {', '.join(names)}", each.found, each.remedy)
        for each, names in named.items()
    ]
