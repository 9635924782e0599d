"""What the drift monitors say, as it decides on versions and backups [EM4, EM5].

Invariant: a version waits for the verdicts on its own barrier, on all shards of its tables, and never
longer than the gates may take; where nobody has said anything, it says so and the policy decides. A
backup is taken at once and given up when a verdict calls its tick, or one before it, into doubt.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable

from driftline.control import Alarm, BackupTaken, ControlTopic, DriftVerdict, RecoveryEnded, Told
from driftline.errors import DriftlineError
from driftline.versions.gating import Candidate, Judgement, Status
from driftline_services.versioner.core import Versioner

_logger = logging.getLogger(__name__)
NAME = "drift"
_WAIT = 0.2
_LOOK_BACK = 4_096  # control events read at a start
_KEPT = 1_024  # barriers
_BLIND = frozenset({"calibrating", "cooling", "degraded", "incomplete"})


class DriftGate:
    """The verdicts of the control topic: an `Evaluator` of versions, and the judge of backups."""

    def __init__(self, topic: ControlTopic) -> None:
        self._topic = topic
        self._verdicts: dict[int, list[DriftVerdict]] = {}
        self._open: int = 0  # the alarm that is not dealt with
        self._bad: dict[int, int] = {}  # op of a verdict that calls for something -> from which op on
        self._read = False  # what was there at the start
        self._news = asyncio.Condition()

    @property
    def name(self) -> str:
        """What it is called in manifests."""
        return NAME

    async def evaluate(self, candidate: Candidate) -> Judgement:
        """Wait for the verdicts on the candidate's barrier."""
        async with self._news:
            await self._news.wait_for(lambda: self._read)
            if not self._verdicts:
                return Judgement(NAME, Status.NOT_EVALUATED, "no drift monitor has judged this group lately")
            await self._news.wait_for(lambda: self._covered(candidate))
            return judgement(self._verdicts.get(candidate.op, []), self._open)

    def note(self, told: Told) -> None:
        """Enter an event."""
        event = told.event
        if isinstance(event, DriftVerdict):
            self._verdicts.setdefault(event.op, []).append(event)
            while len(self._verdicts) > _KEPT:
                del self._verdicts[next(iter(self._verdicts))]
            if event.action != "none":
                self._bad[event.op] = min(self._bad.get(event.op, event.op), event.onset or event.op)
        elif isinstance(event, Alarm):
            self._open = event.alarm
        elif isinstance(event, RecoveryEnded) and event.alarm == self._open:
            self._open = 0

    def doubted(self, backups: Iterable[int]) -> list[int]:
        """Return which backups are called into doubt: those between an onset and the verdict that saw it."""
        return [op for op in backups if any(since <= op <= last for last, since in self._bad.items())]

    async def run(self, versioner: Versioner) -> None:
        """Follow the control topic, and have doubted backups given up, for ever."""
        start: int | None = None
        while True:
            try:
                if start is None:
                    start = max(0, await self._topic.end() - _LOOK_BACK)
                reader = await self._topic.reader(start)
                try:
                    while True:
                        found = await reader.read(wait=_WAIT)
                        start = reader.position
                        await self._enter(found, caught_up=start >= await self._topic.end())
                        if any(isinstance(each.event, DriftVerdict | BackupTaken) for each in found):
                            await versioner.taker.give_up(self.doubted, versioner.following.homes)
                finally:
                    await reader.close()
            except DriftlineError as error:
                _logger.warning("control topic: %s", error)
                await asyncio.sleep(_WAIT)

    async def _enter(self, found: Iterable[Told], *, caught_up: bool) -> None:
        async with self._news:
            for told in found:
                self.note(told)
            self._read = self._read or caught_up
            self._news.notify_all()

    def _covered(self, candidate: Candidate) -> bool:
        judged: dict[str, set[int]] = {}
        whole: dict[str, int] = {}
        for each in self._verdicts.get(candidate.op, []):
            judged.setdefault(each.table, set()).update(each.shards)
            whole[each.table] = each.of
        return all(len(judged.get(table, ())) >= whole.get(table, 1) for table in candidate.rows)


def judgement(verdicts: Iterable[DriftVerdict], alarm: int) -> Judgement:
    """Return what verdicts on a barrier mean to its version; `alarm`: one that is not dealt with, or 0.

    Of several verdicts on the same rows the stricter holds.
    """
    some = list(verdicts)
    figures = {f"{each.table}.deviating": float(each.node_count) for each in some}
    bad = [each for each in some if each.action != "none"]
    if bad:
        worst = max(bad, key=lambda each: each.action == "full_rollback")
        reason = f"{worst.table}: {worst.standing} by {worst.rule}, {worst.node_count} rows deviate"
        return Judgement(NAME, Status.FAILED, reason, figures)
    if alarm:
        return Judgement(NAME, Status.FAILED, f"alarm {alarm} is not dealt with", figures)
    blind = sorted({f"{each.table}: {each.standing}" for each in some if each.standing in _BLIND})
    if blind:
        return Judgement(NAME, Status.NOT_EVALUATED, ", ".join(blind), figures)
    return Judgement(NAME, Status.PASSED, ", ".join(sorted({each.standing for each in some})), figures)
