"""Whether a version is good enough to be stored [EM4, EM16].

Invariant: "passed" is said only by an evaluator that has compared something. A figure that is
missing, an answer that did not come, is "not evaluated"; what then becomes of the version is a
policy, and stands in the manifest beside the judgements.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Protocol


class Status(StrEnum):
    """What an evaluator says."""

    PASSED = "passed"
    FAILED = "failed"
    NOT_EVALUATED = "not_evaluated"


class Unanswered(StrEnum):
    """What becomes of a version that an evaluator did not judge."""

    STORE = "store"
    REJECT = "reject"


@dataclass(frozen=True, slots=True)
class Judgement:
    """What one evaluator says of one version, and why."""

    evaluator: str
    status: Status
    reason: str = ""
    figures: Mapping[str, float] = field(default_factory=dict)  # what it measured itself


@dataclass(frozen=True, slots=True)
class Candidate:
    """A version before it is stored."""

    group: str
    op: int  # number of its barrier
    branch: str
    scenario: str
    figures: Mapping[str, float]  # reported with the snapshot; finite
    metadata: Mapping[str, object]
    parent: str | None  # version
    parent_figures: Mapping[str, float]
    rows: Mapping[str, int]  # live, by table
    changed: Mapping[str, int]  # since the parent, by table


class Evaluator(Protocol):
    """Judges versions. What it raises counts as not evaluated, with the error as the reason."""

    @property
    def name(self) -> str:
        """What it is called in manifests."""

    async def evaluate(self, candidate: Candidate) -> Judgement:
        """Return its judgement; it is cancelled when the gate's time-out is over."""


class Better(StrEnum):
    """Which direction of a figure is the good one."""

    LOWER = "lower"
    HIGHER = "higher"


@dataclass(frozen=True, slots=True)
class FigureGate:
    """Fails a version whose figure is worse than its parent's by more than a tolerance.

    Examples
    --------
    >>> FigureGate("loss", Better.LOWER, 0.05, relative=True).limit(0.5)
    0.525
    """

    figure: str
    better: Better
    tolerance: float
    relative: bool = False  # the tolerance is a fraction of the parent's figure

    @property
    def name(self) -> str:
        """What it is called in manifests."""
        return f"figure:{self.figure}"

    def limit(self, parent: float) -> float:
        """Return the worst figure that passes."""
        allowed = self.tolerance * abs(parent) if self.relative else self.tolerance
        return parent + allowed if self.better is Better.LOWER else parent - allowed

    async def evaluate(self, candidate: Candidate) -> Judgement:
        """Compare the figure that was reported with the parent's."""
        value, before = candidate.figures.get(self.figure), candidate.parent_figures.get(self.figure)
        if value is None:
            return self._say(Status.NOT_EVALUATED, f"no figure {self.figure!r} was reported")
        if before is None:
            against = candidate.parent or "a parent"
            return self._say(Status.NOT_EVALUATED, f"{against} has no figure {self.figure!r} to compare with")
        limit = self.limit(before)
        good = value <= limit if self.better is Better.LOWER else value >= limit
        bound = "at most" if self.better is Better.LOWER else "at least"
        reason = f"{self.figure} {value:g}, {candidate.parent} has {before:g}: {bound} {limit:g} allowed"
        return self._say(Status.PASSED if good else Status.FAILED, reason)

    def _say(self, status: Status, reason: str) -> Judgement:
        return Judgement(self.name, status, reason)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What the gate decided."""

    accepted: bool
    judgements: tuple[Judgement, ...]
    unanswered: Unanswered
    timeout: float  # seconds that the evaluators had

    @property
    def reason(self) -> str:
        """Why it was not accepted, in one line; '' if it was."""
        if self.accepted:
            return ""
        against = [each for each in self.judgements if each.status is not Status.PASSED]
        return "; ".join(f"{each.evaluator}: {each.reason or each.status}" for each in against)

    def to_json(self) -> dict[str, object]:
        """Return what stands in manifests and events."""
        return {
            "accepted": self.accepted,
            "unanswered": str(self.unanswered),
            "timeout_s": self.timeout,
            "judgements": [
                {
                    "evaluator": each.evaluator,
                    "status": str(each.status),
                    "reason": each.reason,
                    "figures": dict(each.figures),
                }
                for each in self.judgements
            ],
        }


def decide(judgements: Sequence[Judgement], unanswered: Unanswered, timeout: float) -> Outcome:
    """Return the gate's decision: one failure rejects; silence does as the policy says."""
    failed = any(each.status is Status.FAILED for each in judgements)
    silent = any(each.status is Status.NOT_EVALUATED for each in judgements)
    accepted = not failed and not (silent and unanswered is Unanswered.REJECT)
    return Outcome(accepted, tuple(judgements), unanswered, timeout)


def finite_figures(reported: object) -> dict[str, float]:
    """Return the finite numbers among the figures that a trainer reported; others count as missing.

    Examples
    --------
    >>> finite_figures({"loss": 0.5, "auc": None, "note": "x", "nan": float("nan")})
    {'loss': 0.5}
    """
    if not isinstance(reported, Mapping):
        return {}
    return {
        str(name): float(value)
        for name, value in reported.items()
        if isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    }
