"""Which version a group goes back to, and which producers stand in its way.

Invariant: pure. A version is gone back to only if its barrier is not newer than the last clean one,
and if it does not lie in a stretch that an earlier recovery has undone.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from driftline.control.ledger import NODES, RESTORED, Case, Ledger, figures_of
from driftline_services.drift_monitor.producers import suspects

_HEALTHY = ("ok", "warning", "calibrating")
_LOOK_BACK = 64  # healthy ticks that producers are compared with


@dataclass(frozen=True, slots=True)
class Target:
    """A version as a recovery sees it, of the line that the tables stand on; newest first in lists."""

    version: str
    op: int
    passed: bool  # the monitor's verdict on it was asked for, and passed
    copy: bool = False  # it only records a rollback: its rows are another's


@dataclass(frozen=True, slots=True)
class Choose:
    """Choose a version to go back to; nothing can be said without the store."""

    case: Case
    before: int  # op: not newer than this
    below: int  # op: and older than this
    spoiled: tuple[tuple[int, int], ...]  # stretches of ops, begin and end exclusive, that were undone
    skipped: tuple[str, ...]  # versions that were tried


def choose(versions: Iterable[Target], wanted: Choose) -> Target | None:
    """Return the version to go back to: the newest that passed, or else the newest that nobody judged."""
    fit = [
        each
        for each in versions
        if each.op <= wanted.before
        and each.op < wanted.below
        and not each.copy
        and each.version not in wanted.skipped
        and not any(begin < each.op < end for begin, end in wanted.spoiled)
    ]
    return max(fit, key=lambda each: (each.passed, each.op), default=None)


def new_suspects(ledger: Ledger, case: Case, earlier: list[Case]) -> dict[str, float]:
    """Return the producers that stand out and were not shut out before."""
    known = {name for each in earlier for step in each.all("quarantined") for name in _names(step.figures)}
    return {name: factor for name, factor in _suspects(ledger, case, earlier).items() if name not in known}


def chain(ledger: Ledger, case: Case, relapse_ticks: int, outcome: str) -> list[Case]:
    """Return the recoveries with an outcome that this alarm follows closely, the newest first."""
    found: list[Case] = []
    op = case.alarm.alarm
    for each in ledger.ended():
        if each.ended is None or each.ended.outcome not in (RESTORED, NODES):
            break
        between = sum(each.covers < tick <= op for tick in ledger.verdicts)
        if between > relapse_ticks:
            break
        found.append(each)
        op = each.alarm.alarm
    return [each for each in found if each.ended is not None and each.ended.outcome == outcome]


def _suspects(ledger: Ledger, case: Case, earlier: list[Case]) -> dict[str, float]:
    first = min(each.alarm.alarm for each in earlier)
    healthy: dict[int, dict[str, float]] = {}
    bad: dict[int, dict[str, float]] = {}
    for op in sorted(ledger.verdicts):
        for verdict in ledger.verdicts[op].values():
            norms = figures_of(verdict)
            if op < first and verdict.standing in _HEALTHY:
                healthy.setdefault(op, {}).update(_larger(healthy.get(op, {}), norms))
            elif op >= case.alarm.alarm and verdict.table == case.alarm.table:
                bad.setdefault(op, {}).update(_larger(bad.get(op, {}), norms))
    recent = [healthy[op] for op in sorted(healthy)[-_LOOK_BACK:]]
    return suspects(recent, list(bad.values()))


def _larger(known: Mapping[str, float], norms: Mapping[str, float]) -> dict[str, float]:
    return {name: max(norm, known.get(name, 0.0)) for name, norm in norms.items()}


def _names(figures: Mapping[str, object]) -> list[str]:
    found = figures.get("producers")
    return list(found) if isinstance(found, dict) else []


def target_op(case: Case) -> int:
    """Return the op of the version that a recovery went back to."""
    step = case.last("restoring")
    op = step.figures.get("target") if step is not None else None
    return op if isinstance(op, int) else case.alarm.clean + 1
