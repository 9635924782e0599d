"""What is to be done next about drift: a function of the ledger, the versions and the settings.

Invariant: pure; each call names one step, and the step it names follows from the events told so far
alone. So whoever leads, and however often it starts again, the same recovery is carried out once.
Few nodes go back to a backup in memory; for more the group goes back to the newest version that
passed and is older than the onset. If the trouble comes again soon: a producer that stands out is
shut out first, then an older version is taken, then a person is asked.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from driftline.control import Alarm, DriftVerdict
from driftline_services.drift_monitor.ledger import (
    FULL,
    NODES,
    NONE,
    RESTORED,
    Case,
    Ledger,
    figures_of,
    severity,
)
from driftline_services.drift_monitor.producers import suspects

AUTO, APPROVE, OBSERVE = "auto", "approve", "observe"
_OFTEN = 3  # node rollbacks in a row behind which the group goes back
_HEALTHY = ("ok", "warning", "calibrating")
_LOOK_BACK = 64  # healthy ticks that producers are compared with


@dataclass(frozen=True, slots=True)
class Rules:
    """What a recovery is bound by."""

    mode: str
    relapse_ticks: int  # trouble within so many ticks of a rollback is the same trouble again
    quiet_ticks: int  # ticks without anything behind which an alarm that was only told is over
    instance: str


@dataclass(frozen=True, slots=True)
class Target:
    """A version as a recovery sees it, of the line that the tables stand on; newest first in lists."""

    version: str
    op: int
    passed: bool  # the monitor's verdict on it was asked for, and passed
    copy: bool = False  # it only records a rollback: its rows are another's


@dataclass(frozen=True, slots=True)
class Raise:
    """Tell an alarm."""

    alarm: Alarm


@dataclass(frozen=True, slots=True)
class Step:
    """Tell a step; what it says is then carried out."""

    case: Case
    step: str
    why: str
    figures: Mapping[str, object] = field(default_factory=dict)
    who: str = ""  # "": the instance


@dataclass(frozen=True, slots=True)
class End:
    """Tell that an alarm is dealt with."""

    case: Case
    outcome: str
    why: str
    version: str = ""
    figures: Mapping[str, object] = field(default_factory=dict)
    who: str = ""


@dataclass(frozen=True, slots=True)
class Ask:
    """Ask for a person."""

    case: Case
    why: str


@dataclass(frozen=True, slots=True)
class CarryOut:
    """Go on with the last step that was told: nodes, quarantine, preparing or restoring."""

    case: Case
    step: str


@dataclass(frozen=True, slots=True)
class Choose:
    """Choose a version to go back to; nothing can be said without the store."""

    case: Case
    before: int  # op: not newer than this
    below: int  # op: and older than this
    spoiled: tuple[tuple[int, int], ...]  # stretches of ops, begin and end exclusive, that were undone
    skipped: tuple[str, ...]  # versions that were tried


Decision = Raise | Step | End | Ask | CarryOut | Choose | None


def decide(ledger: Ledger, rules: Rules) -> Decision:
    """Return what is to be done next; None: nothing."""
    case = ledger.open
    if case is None:
        return _alarm(ledger, rules)
    return _go_on(ledger, case, rules)


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


def strictest(verdicts: Iterable[DriftVerdict]) -> DriftVerdict | None:
    """Return the verdict that calls for most; of equal ones the first."""
    return max(verdicts, key=severity, default=None)


# -- raising


def _alarm(ledger: Ledger, rules: Rules) -> Raise | None:
    covered = max((each.covers for each in ledger.ended()), default=0)
    calling = ledger.calling(covered)
    if not calling:
        return None
    first = calling[0].op
    here = [each for each in calling if each.op == first]
    worst = strictest(here)
    assert worst is not None, "there is one"
    onset, clean = _onset(here)
    nodes: dict[str, tuple[int, ...]] = {}
    for each in here:
        nodes[each.table] = tuple(sorted({*nodes.get(each.table, ()), *each.nodes}))
    names = tuple(f"{each.TYPE}/{each.subject}" for each in here)
    why = _why(worst)
    return Raise(
        Alarm(
            first,
            worst.table,
            worst.rule,
            worst.action,
            rules.mode,
            onset,
            clean,
            nodes,
            names,
            why,
            rules.instance,
        )
    )


def _why(verdict: DriftVerdict) -> str:
    said = str(verdict.evidence.get("why") or "")
    what = f"{verdict.node_count} of {verdict.evidence.get('rows', '?')} rows of {verdict.table} deviate"
    return said or what if verdict.node_count else said or f"{verdict.table} as a whole moves otherwise"


def _onset(verdicts: Iterable[DriftVerdict]) -> tuple[int, int]:
    """Return the earliest onset of some verdicts, and the newest barrier before it."""
    found = [(each.onset or each.op, each.clean or each.begun) for each in verdicts]
    found = found or [(1 << 62, 1 << 62)]
    return min(onset for onset, _ in found), min(clean for _, clean in found)


# -- going on


def _go_on(ledger: Ledger, case: Case, rules: Rules) -> Decision:
    merged = ledger.calling(case.alarm.alarm - 1)
    answer = case.answers[-1] if case.answers else None
    if answer is not None and answer.answer == "reject" and case.last("restoring") is None:
        return End(case, "rejected", answer.why, who=answer.who, figures={"op": case.seen})
    if answer is not None and not any(
        each.figures.get("answer") == answer.number for each in case.all("approved")
    ):
        return Step(case, "approved", answer.why, {"answer": answer.number}, who=answer.who)
    if answer is None and case.alarm.mode != AUTO:
        return _told(ledger, case, rules, merged)
    if case.needs_person is not None and not _approved_since(case):
        return None
    worst = strictest(merged)
    full = (case.alarm.action == FULL) or (worst is not None and severity(worst) == 2)
    if case.last("escalated") is not None or (full and case.last("nodes") is None):
        return _full(ledger, case, rules)
    if full:
        if worst is not None:
            return Step(case, "escalated", f"meanwhile {worst.rule} at op {worst.op}: {_why(worst)}")
    return _nodes(ledger, case, rules)


def _told(ledger: Ledger, case: Case, rules: Rules, merged: list[DriftVerdict]) -> Decision:
    if rules.mode == APPROVE:
        if case.last("waiting") is None:
            return Step(case, "waiting", f"for `driftline drift approve {case.alarm.alarm}` or reject")
        return None
    if case.last("observed") is None:
        return Step(case, "observed", "drift_mode is observe: nothing is undone by itself")
    last = max((each.op for each in merged), default=case.alarm.alarm)
    if ledger.ticks_after(last) >= rules.quiet_ticks:
        return End(case, "observed", f"quiet for {rules.quiet_ticks} ticks", figures={"op": case.seen})
    return None


def _nodes(ledger: Ledger, case: Case, rules: Rules) -> Decision:
    step = case.last("nodes")
    if step is not None:
        return CarryOut(case, "nodes")
    lately = [each for each in _chain(ledger, case, rules) if each.ended and each.ended.outcome == NODES]
    if len(lately) >= _OFTEN:
        return Step(case, "escalated", f"rows were put back {len(lately)} times lately, and deviate again")
    if not case.alarm.clean:
        return Step(case, "escalated", "no barrier before the onset is known, so no backup either")
    requests = {table: list(nodes) for table, nodes in case.alarm.nodes.items() if nodes}
    figures = {"backup": case.alarm.clean, "rows": {name: len(ids) for name, ids in requests.items()}}
    return Step(case, "nodes", f"{_count(requests)} rows go back to backup {case.alarm.clean}", figures)


def _full(ledger: Ledger, case: Case, rules: Rules) -> Decision:
    last = case.last("quarantined", "shut_out", "preparing", "restoring", "skipped", "person")
    if last is not None and last.step in ("quarantined", "preparing", "restoring"):
        return CarryOut(case, last.step)
    earlier = [each for each in _chain(ledger, case, rules) if each.ended and each.ended.outcome == RESTORED]
    shut_out = case.last("shut_out") is not None
    if earlier and not shut_out:
        found = _new_suspects(ledger, case, earlier)
        if found:
            most = max(found, key=lambda name: found[name])
            factor = (
                f"{found[most]:.3g} times as long as usual" if found[most] < float("inf") else "not finite"
            )
            why = f"gradients of producer {most} are {factor}, again after a rollback"
            return Step(case, "quarantined", why, {"producers": found})
    _, clean = _onset(ledger.calling(case.alarm.alarm - 1))
    before, below = min(clean, case.alarm.clean), 1 << 62
    if earlier:
        before = min([before, *(each.alarm.clean for each in earlier)])
    if earlier and not shut_out:  # nobody stands out: what was gone back to is not trusted either
        below = min(_target_op(each) for each in earlier)
    spoiled = tuple(
        (each.alarm.clean, each.covers)
        for each in ledger.ended()
        if each.ended is not None and each.ended.outcome == RESTORED
    )
    skipped = tuple(str(each.figures.get("version")) for each in case.all("skipped"))
    return Choose(case, before, below, spoiled, skipped)


def _new_suspects(ledger: Ledger, case: Case, earlier: list[Case]) -> dict[str, float]:
    """Return the producers that stand out and were not shut out before."""
    known = {name for each in earlier for step in each.all("quarantined") for name in _names(step.figures)}
    return {name: factor for name, factor in _suspects(ledger, case, earlier).items() if name not in known}


def _chain(ledger: Ledger, case: Case, rules: Rules) -> list[Case]:
    """Return the alarms dealt with by going back that this one follows closely, the newest first."""
    found: list[Case] = []
    op = case.alarm.alarm
    for each in ledger.ended():
        if each.ended is None or each.ended.outcome not in (RESTORED, NODES):
            break
        between = sum(each.covers < tick <= op for tick in ledger.verdicts)
        if between > rules.relapse_ticks:
            break
        found.append(each)
        op = each.alarm.alarm
    return found


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


def _target_op(case: Case) -> int:
    step = case.last("restoring")
    op = step.figures.get("target") if step is not None else None
    return op if isinstance(op, int) else case.alarm.clean + 1


def _approved_since(case: Case) -> bool:
    """Whether a person has said yes after being asked for."""
    asked = case.last("person")
    approved = case.last("approved")
    return asked is not None and approved is not None and approved.number > asked.number


def _count(requests: Mapping[str, list[int]]) -> int:
    return sum(len(ids) for ids in requests.values())


__all__ = [
    "NONE",
    "Ask",
    "CarryOut",
    "Choose",
    "Decision",
    "End",
    "Raise",
    "Rules",
    "Step",
    "Target",
    "choose",
    "decide",
    "strictest",
]
