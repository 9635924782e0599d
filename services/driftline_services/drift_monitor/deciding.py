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
from driftline.control.ledger import (
    FULL,
    NODES,
    RESTORED,
    Case,
    Ledger,
    severity,
)
from driftline_services.drift_monitor.choosing import Choose, chain, new_suspects, target_op

AUTO, APPROVE, OBSERVE = "auto", "approve", "observe"
_OFTEN = 3  # node rollbacks in a row behind which the group goes back


@dataclass(frozen=True, slots=True)
class Rules:
    """What a recovery is bound by."""

    mode: str
    relapse_ticks: int  # trouble within so many ticks of a rollback is the same trouble again
    quiet_ticks: int  # ticks without anything behind which an alarm that was only told is over
    instance: str


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


Decision = Raise | Step | End | Ask | CarryOut | Choose | None


def decide(ledger: Ledger, rules: Rules) -> Decision:
    """Return what is to be done next; None: nothing."""
    case = ledger.open
    if case is None:
        return _alarm(ledger, rules)
    return _go_on(ledger, case, rules)


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
    if answer is not None:
        if answer.answer == "reject" and case.last("restoring") is None:
            return End(case, "rejected", answer.why, who=answer.who, figures={"op": case.seen})
        if all(each.figures.get("answer") != answer.number for each in case.all("approved")):
            return Step(case, "approved", answer.why, {"answer": answer.number}, who=answer.who)
    elif case.alarm.mode != AUTO:
        return _told(ledger, case, rules, merged)
    if case.needs_person is not None and not _approved_since(case):
        return None
    return _undo(ledger, case, rules, strictest(merged))


def _undo(ledger: Ledger, case: Case, rules: Rules, worst: DriftVerdict | None) -> Decision:
    full = case.alarm.action == FULL or (worst is not None and severity(worst) == 2)
    if case.last("escalated") is not None or (full and case.last("nodes") is None):
        return _full(ledger, case, rules)
    if full and worst is not None:
        return Step(case, "escalated", f"meanwhile {worst.rule} at op {worst.op}: {_why(worst)}")
    return _nodes(ledger, case, rules)


def _told(ledger: Ledger, case: Case, rules: Rules, merged: list[DriftVerdict]) -> Decision:
    if case.alarm.mode == APPROVE:
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
    lately = chain(ledger, case, rules.relapse_ticks, NODES)
    if len(lately) >= _OFTEN:
        return Step(case, "escalated", f"rows were put back {len(lately)} times lately, and deviate again")
    wanted = {table: nodes for table, nodes in case.alarm.nodes.items() if nodes}
    backup = _backup(ledger, case, tuple(wanted))
    if backup is None:
        return Step(case, "escalated", f"no backup in memory is as old as op {case.alarm.clean}")
    figures = {"backup": backup, "rows": {table: len(nodes) for table, nodes in wanted.items()}}
    count = sum(map(len, wanted.values()))
    return Step(case, "nodes", f"{count} rows go back to backup {backup}", figures)


def _backup(ledger: Ledger, case: Case, tables: tuple[str, ...]) -> int | None:
    """Return the newest backup in memory that all these tables are in and that is not newer than clean."""
    of = {each.table: each.of for scopes in ledger.verdicts.values() for each in scopes.values()}
    held = [set(ledger.backups(table, of.get(table, 1))) for table in tables]
    known = set.intersection(*held) if held else set()
    return max((op for op in known if op <= case.alarm.clean), default=None)


def _full(ledger: Ledger, case: Case, rules: Rules) -> Decision:
    last = case.last("quarantined", "shut_out", "preparing", "restoring", "skipped", "person")
    if last is not None and last.step in ("quarantined", "preparing", "restoring"):
        return CarryOut(case, last.step)
    earlier = chain(ledger, case, rules.relapse_ticks, RESTORED)
    shut_out = case.last("shut_out") is not None
    if earlier and not shut_out:
        found = new_suspects(ledger, case, earlier)
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
        below = min(target_op(each) for each in earlier)
    spoiled = tuple(
        (each.alarm.clean, each.covers)
        for each in ledger.ended()
        if each.ended is not None and each.ended.outcome == RESTORED
    )
    skipped = tuple(str(each.figures.get("version")) for each in case.all("skipped"))
    return Choose(case, before, below, spoiled, skipped)


def _approved_since(case: Case) -> bool:
    """Whether a person has said yes after being asked for."""
    asked = case.last("person")
    approved = case.last("approved")
    return asked is not None and approved is not None and approved.number > asked.number
