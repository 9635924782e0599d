"""What a recovery does next follows from the control topic alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from driftline.control import (
    Alarm,
    AlarmAnswered,
    BackupsHeld,
    ControlEvent,
    DriftVerdict,
    HeldBackup,
    RecoveryEnded,
    RecoveryStep,
    Told,
    event_id,
)
from driftline.control.ledger import Ledger
from driftline_services.drift_monitor.choosing import Choose, Target, choose
from driftline_services.drift_monitor.deciding import CarryOut, Decision, End, Raise, Rules, Step, decide

AUTO = Rules("auto", 10, 3, "me")
FULL, NODES, NONE = "full_rollback", "node_rollback", "none"
TRAINER, BAD = "aa" * 16, "bb" * 16


def verdict(
    op: int,
    action: str = NONE,
    *,
    table: str = "items",
    nodes: tuple[int, ...] = (),
    clean: int | None = None,
    norms: dict[str, float] | None = None,
) -> DriftVerdict:
    standing = {FULL: "alarm", NODES: "deviating", NONE: "ok"}[action]
    before = op - 1 if clean is None else clean
    told = {name: [100, norm, norm] for name, norm in (norms or {TRAINER: 1.0}).items()}
    found = before if action != NONE else 0
    onset = found + 1 if action != NONE else 0
    return DriftVerdict(
        op,
        table,
        (0,),
        1,
        "me",
        op,
        op - 1,
        "auto",
        standing,
        "r",
        action,
        nodes,
        len(nodes),
        onset,
        found,
        {},
        told,
    )


def ledger_of(events: Sequence[ControlEvent]) -> Ledger:
    ledger = Ledger()
    for offset, event in enumerate(events):
        ledger.note(Told("g", event_id(event), event, offset, offset))
    return ledger


def told_by(decision: Decision, steps: int = 0) -> ControlEvent:
    """Return what the executor tells of a decision."""
    if isinstance(decision, Raise):
        return decision.alarm
    if isinstance(decision, Step):
        alarm = decision.case.alarm.alarm
        number = len(decision.case.steps) + 1
        return RecoveryStep(alarm, number, decision.step, "me", decision.why, decision.figures)
    assert isinstance(decision, End), decision
    return RecoveryEnded(decision.case.alarm.alarm, decision.outcome, "me", "", "", decision.figures)


def restored(
    alarm: int, op: int, target: int, version: str = "V-R-1.0", clean: int = 0
) -> list[ControlEvent]:
    """A recovery that went back to a version."""
    version = "V-R-1.0"
    figures = {"version": version, "target": target, "passed": True}
    return [
        replace(alarm_of(verdict(alarm, FULL, clean=clean or alarm - 1))),
        RecoveryStep(alarm, 1, "preparing", "me", "", figures),
        RecoveryStep(alarm, 2, "restoring", "me", "", figures),
        RecoveryEnded(alarm, "restored", "me", "", version, {"op": op, "target": target}),
    ]


def alarm_of(*verdicts: DriftVerdict) -> Alarm:
    found = decide(ledger_of(verdicts), AUTO)
    assert isinstance(found, Raise)
    return found.alarm


def test_nothing_is_done_while_all_is_well() -> None:
    assert decide(ledger_of([verdict(op) for op in range(1, 9)]), AUTO) is None


def test_an_alarm_is_made_of_the_strictest_verdict_on_its_barrier_and_of_all_their_nodes() -> None:
    found = alarm_of(
        verdict(5, NODES, nodes=(7,)),
        verdict(5, FULL, table="users", nodes=(1, 2), clean=3),
        verdict(6, FULL),
    )
    assert (found.alarm, found.table, found.action, found.clean) == (5, "users", FULL, 3)
    assert found.nodes == {"items": (7,), "users": (1, 2)}


def test_of_two_monitors_that_disagree_the_stricter_holds() -> None:
    both = [verdict(5), replace(verdict(5, FULL), instance="other")]
    for order in (both, both[::-1]):
        assert alarm_of(*order).instance == "me"


def held(*ops: int) -> BackupsHeld:
    return BackupsHeld("v", ops[-1], {"items": (0,)}, tuple(HeldBackup(op, op, 1, 1) for op in ops))


def test_few_nodes_without_a_backup_take_the_group_back() -> None:
    events: list[ControlEvent] = [held(5), verdict(5, NODES, nodes=(7, 9))]
    events.append(told_by(decide(ledger_of(events), AUTO)))
    step = decide(ledger_of(events), AUTO)
    assert isinstance(step, Step)
    assert step.step == "escalated"


def test_few_nodes_go_back_to_the_backup_before_the_onset() -> None:
    events: list[ControlEvent] = [held(3, 4), verdict(4), verdict(5, NODES, nodes=(7, 9)), held(3, 4, 5)]
    events.append(told_by(decide(ledger_of(events), AUTO)))
    step = decide(ledger_of(events), AUTO)
    assert isinstance(step, Step)
    assert (step.step, step.figures["backup"]) == ("nodes", 4)
    events.append(told_by(step))
    assert isinstance(decide(ledger_of(events), AUTO), CarryOut)


def test_a_stricter_verdict_meanwhile_takes_the_group_back() -> None:
    events: list[ControlEvent] = [held(4), verdict(5, NODES, nodes=(7,))]
    events.append(told_by(decide(ledger_of(events), AUTO)))
    events.append(told_by(decide(ledger_of(events), AUTO)))
    events.append(verdict(6, FULL))
    step = decide(ledger_of(events), AUTO)
    assert isinstance(step, Step)
    assert step.step == "escalated"
    events.append(told_by(step))
    found = decide(ledger_of(events), AUTO)
    assert isinstance(found, Choose)
    assert found.before == 4


def test_storms_are_merged_into_the_open_alarm() -> None:
    events: list[ControlEvent] = [verdict(5, FULL)]
    events.append(told_by(decide(ledger_of(events), AUTO)))
    events += [verdict(op, FULL) for op in range(6, 12)]
    assert isinstance(decide(ledger_of(events), AUTO), Choose)
    events += restored(5, 12, 3)[1:]
    assert decide(ledger_of(events), AUTO) is None


def test_the_target_is_older_than_the_earliest_onset() -> None:
    events: list[ControlEvent] = [verdict(9, FULL, clean=4)]
    events.append(told_by(decide(ledger_of(events), AUTO)))
    found = decide(ledger_of(events), AUTO)
    assert isinstance(found, Choose)
    versions = [Target("d", 8, True), Target("c", 5, True), Target("b", 4, True), Target("a", 2, True)]
    assert choose(versions, found) == versions[2]


def test_a_version_that_nobody_judged_is_taken_only_if_none_passed() -> None:
    wanted = Choose(ledger_of([]).open or None, 9, 99, (), ())  # type: ignore[arg-type]
    assert choose([Target("b", 8, False), Target("a", 2, True)], wanted) == Target("a", 2, True)
    assert choose([Target("b", 8, False), Target("a", 2, False)], wanted) == Target("b", 8, False)


def test_what_a_recovery_has_undone_is_not_gone_back_to() -> None:
    events: list[ControlEvent] = [verdict(5, FULL, clean=3), *restored(5, 8, 3, clean=3)]
    events += [verdict(op) for op in range(9, 30)]
    events.append(verdict(30, FULL, clean=29))
    events.append(told_by(decide(ledger_of(events), AUTO)))
    found = decide(ledger_of(events), AUTO)
    assert isinstance(found, Choose)
    versions = [Target("copy", 8, True, copy=True), Target("bad", 6, True), Target("good", 3, True)]
    assert choose(versions, found) == versions[2]


def relapse(norms: dict[str, float]) -> list[ControlEvent]:
    events: list[ControlEvent] = [verdict(op) for op in range(1, 5)]
    events += [verdict(5, FULL, clean=3), *restored(5, 6, 3, clean=3)]
    events += [verdict(7), verdict(8, FULL, norms={TRAINER: 1.0, **norms})]
    events.append(told_by(decide(ledger_of(events), AUTO)))
    return events


def test_a_producer_that_stands_out_after_a_rollback_is_shut_out_before_anything_older_is_restored() -> None:
    events = relapse({BAD: 50.0})
    step = decide(ledger_of(events), AUTO)
    assert isinstance(step, Step)
    assert (step.step, step.figures) == ("quarantined", {"producers": {BAD: 50.0}})
    events.append(told_by(step))
    assert isinstance(decide(ledger_of(events), AUTO), CarryOut)
    events.append(RecoveryStep(8, 2, "shut_out", "me", ""))
    found = decide(ledger_of(events), AUTO)
    assert isinstance(found, Choose)
    assert (found.before, found.below > 3) == (3, True)  # the same version again


def test_without_such_a_producer_an_older_version_is_restored() -> None:
    found = decide(ledger_of(relapse({})), AUTO)
    assert isinstance(found, Choose)
    assert choose([Target("c", 7, True), Target("b", 3, True), Target("a", 1, True)], found) == Target(
        "a", 1, True
    )


def test_trouble_long_after_a_rollback_is_not_the_same_trouble() -> None:
    events: list[ControlEvent] = [verdict(5, FULL, clean=3), *restored(5, 6, 3, clean=3)]
    events += [verdict(op) for op in range(7, 30)]
    events.append(verdict(30, FULL, norms={TRAINER: 1.0, BAD: 50.0}))
    events.append(told_by(decide(ledger_of(events), AUTO)))
    found = decide(ledger_of(events), AUTO)
    assert isinstance(found, Choose)
    assert found.before == 29


@pytest.mark.parametrize(("mode", "step"), [("observe", "observed"), ("approve", "waiting")])
def test_nothing_is_undone_before_a_person_says_so(mode: str, step: str) -> None:
    rules = replace(AUTO, mode=mode)
    events: list[ControlEvent] = [verdict(5, FULL)]
    for expected in (Alarm, RecoveryStep):
        told = told_by(decide(ledger_of(events), rules))
        assert isinstance(told, expected)
        events.append(told)
    assert ledger_of(events).open is not None
    assert events[-1].step == step  # type: ignore[union-attr]
    assert decide(ledger_of(events), rules) is None
    events.append(AlarmAnswered(5, "approve", "ann", "yes", "0f" * 16))
    approved = decide(ledger_of(events), rules)
    assert isinstance(approved, Step)
    assert (approved.step, approved.who) == ("approved", "ann")
    events.append(told_by(approved))
    assert isinstance(decide(ledger_of(events), rules), Choose)


def test_what_a_person_rejects_ends() -> None:
    rules = replace(AUTO, mode="approve")
    events: list[ControlEvent] = [verdict(5, FULL)]
    events.append(told_by(decide(ledger_of(events), rules)))
    events.append(AlarmAnswered(5, "reject", "ann", "a sale began", "0f" * 16))
    found = decide(ledger_of(events), rules)
    assert isinstance(found, End)
    assert (found.outcome, found.who) == ("rejected", "ann")


def test_an_alarm_that_is_only_told_is_over_when_it_has_been_quiet() -> None:
    rules = replace(AUTO, mode="observe")
    events: list[ControlEvent] = [verdict(5, FULL)]
    events.append(told_by(decide(ledger_of(events), rules)))
    events.append(told_by(decide(ledger_of(events), rules)))
    events += [verdict(op) for op in (6, 7)]
    assert decide(ledger_of(events), rules) is None
    events.append(verdict(8))
    assert isinstance(decide(ledger_of(events), rules), End)


@given(st.data())
def test_events_that_come_twice_change_nothing(data: st.DataObject) -> None:
    events = [*relapse({BAD: 50.0}), RecoveryStep(8, 1, "quarantined", "me", "", {"producers": {BAD: 50.0}})]
    twice = list(events)
    for _ in range(data.draw(st.integers(0, 8))):
        at = data.draw(st.integers(0, len(events) - 1))
        twice.insert(data.draw(st.integers(twice.index(events[at]) + 1, len(twice))), events[at])
    first, second = decide(ledger_of(events), AUTO), decide(ledger_of(twice), AUTO)
    assert isinstance(first, CarryOut)
    assert isinstance(second, CarryOut)
    assert (first.step, first.case.alarm) == (second.step, second.case.alarm)
