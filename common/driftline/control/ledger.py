"""What the control topic says of drift: verdicts, alarms and how far each recovery has come.

Invariant: a fold; the same events in the same order give the same ledger, and an event that comes
twice changes nothing. It is all that a recovery goes on from: whoever leads next knows as much.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TypeVar

from driftline.control import (
    Alarm,
    AlarmAnswered,
    BackupsHeld,
    ControlEvent,
    DriftVerdict,
    PersonNeeded,
    RecoveryEnded,
    RecoveryStep,
    RollbackDone,
    RollbackRefused,
    RollbackRequested,
    Told,
)

KEPT = 8_192  # barriers whose verdicts are remembered
_CASES = 256
NONE, FULL = "none", "full_rollback"
RESTORED, NODES = "restored", "nodes_restored"
Scope = tuple[str, tuple[int, ...]]
_Key = TypeVar("_Key")
_Value = TypeVar("_Value")


@dataclass(slots=True)
class Case:
    """An alarm, and what was done about it."""

    alarm: Alarm
    steps: list[RecoveryStep] = field(default_factory=list)
    answers: list[AlarmAnswered] = field(default_factory=list)
    needs_person: PersonNeeded | None = None
    ended: RecoveryEnded | None = None
    seen: int = 0  # op of the last verdict told before it ended

    def last(self, *steps: str) -> RecoveryStep | None:
        """Return the last step of one of these kinds."""
        return next((each for each in reversed(self.steps) if each.step in steps), None)

    def all(self, step: str) -> list[RecoveryStep]:
        """Return the steps of a kind, oldest first."""
        return [each for each in self.steps if each.step == step]

    @property
    def covers(self) -> int:
        """The last op whose verdicts belong to this case: later trouble is another's."""
        done = self.ended.figures.get("op") if self.ended is not None else None
        return max(self.seen, self.alarm.alarm, done if isinstance(done, int) else 0)


@dataclass(slots=True)
class Answer:
    """What the versioners said to a request for a node rollback."""

    request: RollbackRequested
    shards: set[int] = field(default_factory=set)
    rows: int = 0
    ops: tuple[int, ...] = ()
    refused: str = ""


class Ledger:
    """The control topic of one group, folded."""

    def __init__(self) -> None:
        self.verdicts: dict[int, dict[Scope, DriftVerdict]] = {}  # by op
        self.cases: dict[int, Case] = {}  # by alarm, oldest first
        self.requests: dict[str, Answer] = {}
        self.statements: dict[tuple[str, int], BackupsHeld] = {}
        self.offset = 0

    def note(self, told: Told) -> None:
        """Enter an event."""
        self.offset = told.offset + 1
        self._enter(told.event)

    def _enter(self, event: ControlEvent) -> None:
        match event:
            case DriftVerdict():
                self._enter_verdict(event)
            case Alarm():
                if event.alarm not in self.cases:
                    self.cases[event.alarm] = Case(event, seen=event.alarm)
                    _trim(self.cases, _CASES)
            case AlarmAnswered() | RecoveryStep() | PersonNeeded() | RecoveryEnded():
                case = self.cases.get(event.alarm)
                if case is not None:
                    _enter_in(case, event)
            case RollbackRequested():
                self.requests.setdefault(event.request, Answer(event))
                _trim(self.requests, _CASES)
            case RollbackDone() | RollbackRefused():
                answer = self.requests.get(event.request)
                if answer is not None and not set(event.shards) <= answer.shards:
                    answer.shards |= set(event.shards)
                    if isinstance(event, RollbackDone):
                        answer.rows += event.rows
                        answer.ops += event.ops
                    else:
                        answer.refused = event.reason
            case BackupsHeld():
                for table, shards in event.shards.items():
                    self.statements |= {(table, shard): event for shard in shards}

    def _enter_verdict(self, verdict: DriftVerdict) -> None:
        """Of two verdicts on one scope the stricter holds."""
        scopes = self.verdicts.setdefault(verdict.op, {})
        scope = verdict.table, verdict.shards
        known = scopes.get(scope)
        if known is None or severity(verdict) > severity(known):
            scopes[scope] = verdict
        _trim(self.verdicts, KEPT)
        case = self.open
        if case is not None:
            case.seen = max(case.seen, verdict.op)

    # -- reading

    @property
    def open(self) -> Case | None:
        """The alarm that is not dealt with."""
        last = next(reversed(self.cases.values()), None)
        return last if last is not None and last.ended is None else None

    def ended(self) -> list[Case]:
        """Return the alarms that were dealt with, the newest first."""
        return [each for each in reversed(self.cases.values()) if each.ended is not None]

    def calling(self, after: int) -> list[DriftVerdict]:
        """Return the verdicts on barriers after op `after` that call for something, oldest first."""
        return [
            each
            for op in sorted(self.verdicts)
            if op > after
            for each in self.verdicts[op].values()
            if each.action != NONE
        ]

    def ticks_after(self, op: int) -> int:
        """Return how many barriers after op `op` have been judged."""
        return sum(each > op for each in self.verdicts)

    def scopes_of(self, op: int) -> Iterator[DriftVerdict]:
        """Yield the verdicts on a barrier."""
        yield from self.verdicts.get(op, {}).values()

    def backups(self, table: str, shards: int) -> list[int]:
        """Return the backups in memory that all shards of a table are in, ascending."""
        held = [
            {each.op for each in statement.backups}
            for shard in range(shards)
            if (statement := self.statements.get((table, shard))) is not None
        ]
        return sorted(set.intersection(*held)) if len(held) == shards else []


def severity(verdict: DriftVerdict) -> int:
    """Return how much a verdict calls for: 0 nothing, 1 some nodes, 2 the group."""
    return {NONE: 0, FULL: 2}.get(verdict.action, 1)


def figures_of(verdict: DriftVerdict) -> dict[str, float]:
    """Return the mean norm of each producer's gradients in a tick; infinite where it is not finite."""
    found = {}
    for name, said in verdict.producers.items():
        norm = said[1] if isinstance(said, list | tuple) and len(said) == 3 else None
        found[name] = float(norm) if isinstance(norm, int | float) else float("inf")
    return found


def _enter_in(case: Case, event: AlarmAnswered | RecoveryStep | PersonNeeded | RecoveryEnded) -> None:
    match event:
        case AlarmAnswered() if all(each.number != event.number for each in case.answers):
            case.answers.append(event)
        case RecoveryStep() if event.number == len(case.steps) + 1:  # of two leaders' the first holds
            case.steps.append(event)
        case PersonNeeded():
            case.needs_person = case.needs_person or event
        case RecoveryEnded():
            case.ended = case.ended or event


def _trim(entries: dict[_Key, _Value], limit: int) -> None:
    while len(entries) > limit:
        del entries[next(iter(entries))]
