"""Carries recoveries out, on the instance that leads.

Invariant: before anything is asked for, the step that asks for it is told; what it asks for has an id
that follows from the alarm and the step. So a leader that dies anywhere leaves its successor to ask for
the same things again, and each of them counts once.
"""

from __future__ import annotations

import asyncio
import functools
import logging
from collections.abc import Callable, Mapping

import numpy as np

from driftline import clock
from driftline.client.passing import wait_for_rows
from driftline.client.restoring import check_taken, give_up, until_ready
from driftline.control import (
    PersonNeeded,
    RecoveryEnded,
    RecoveryStep,
    RollbackRequested,
)
from driftline.control.ledger import FULL, NODES, RESTORED, Case, Ledger
from driftline.errors import DriftlineError, RestoreOvertakenError, VersionUnloadableError
from driftline.frames.events import PREPARE, QUARANTINE, RESTORE
from driftline.ids import shard_of
from driftline.shard.restore import ROLLBACK
from driftline_services.drift_monitor import deciding
from driftline_services.drift_monitor.asking import Asking, Means, request_of
from driftline_services.drift_monitor.choosing import Choose, choose
from driftline_services.drift_monitor.deciding import CarryOut, Rules

_logger = logging.getLogger(__name__)
LOOK_BACK = 16_384
"""Control events that a start reads: an alarm that is older has been forgotten."""
_WAIT = 0.1
_PAUSE = 1.0
_GATHER = 0.3  # seconds in which the other tables' verdicts on a barrier may come


class Recovery:
    """Follows the control topic and, while it leads, does what `deciding` says."""

    def __init__(
        self,
        means: Means,
        rules: Rules,
        leads: Callable[[], bool],
        freeze: Callable[[bool], None],
        now: clock.Clock = clock.monotonic,
    ) -> None:
        self._means, self._rules, self._leads, self._freeze = means, rules, leads, freeze
        self._asking, self._now = Asking(means), now
        self.ledger = Ledger()
        self.outcomes: dict[str, int] = {}
        self.failure = ""
        self._first: dict[int, float] = {}  # when an alarm was first thought of

    async def run(self) -> None:
        """Follow and act, for ever."""
        start: int | None = None
        while True:
            try:
                if start is None:
                    start = max(0, await self._means.topic.end() - LOOK_BACK)
                reader = await self._means.topic.reader(start)
                try:
                    while True:
                        for told in await reader.read(wait=_WAIT):
                            self.ledger.note(told)
                        start = reader.position
                        if start < await self._means.topic.end():
                            continue
                        self._freeze(self.ledger.open is not None)
                        if self._leads():
                            await self._act()
                finally:
                    await reader.close()
            except DriftlineError as error:
                self.failure = str(error)
                _logger.warning("recovery: %s", error)
                await asyncio.sleep(_PAUSE)

    async def _act(self) -> None:
        decision = deciding.decide(self.ledger, self._rules)
        match decision:
            case deciding.Raise(alarm):
                if (
                    alarm.action != FULL
                    and self._now() - self._first.setdefault(alarm.alarm, self._now()) < _GATHER
                ):
                    return  # the other tables' verdicts on this barrier may call for more
                self._first.clear()
                _logger.warning("alarm %d: %s by %s: %s", alarm.alarm, alarm.action, alarm.rule, alarm.why)
                await self._means.announcer.tell(alarm)
            case deciding.Step(case, step, why, figures, who):
                await self._step(case, step, why, figures, who)
            case deciding.End(case, outcome, why, version, figures, who):
                await self._end(case, outcome, why, version, figures, who)
            case deciding.Ask(case, why):
                await self._ask_for_person(case, why)
            case Choose():
                await self._choose(decision)
            case CarryOut():
                await self._carry_out(decision)
        self.failure = ""

    # -- telling

    async def _step(
        self, case: Case, step: str, why: str, figures: Mapping[str, object] | None = None, who: str = ""
    ) -> None:
        number = len(case.steps) + 1
        told = RecoveryStep(
            case.alarm.alarm, number, step, who or self._rules.instance, why, dict(figures or {})
        )
        _logger.warning("alarm %d: %s: %s", case.alarm.alarm, step, why)
        await self._means.announcer.tell(told)

    async def _end(
        self, case: Case, outcome: str, why: str, version: str, figures: Mapping[str, object], who: str = ""
    ) -> None:
        _logger.warning("alarm %d is dealt with: %s %s", case.alarm.alarm, outcome, version)
        await self._means.announcer.tell(
            RecoveryEnded(case.alarm.alarm, outcome, who or self._rules.instance, why, version, dict(figures))
        )
        self.outcomes[outcome] = self.outcomes.get(outcome, 0) + 1

    async def _ask_for_person(self, case: Case, why: str) -> None:
        await self._means.announcer.tell(PersonNeeded(case.alarm.alarm, why, {"onset": case.alarm.onset}))
        await self._step(case, "person", why)

    # -- doing

    async def _carry_out(self, what: CarryOut) -> None:
        case = what.case
        match what.step:
            case "nodes":
                await self._nodes(case)
            case "quarantined":
                await self._quarantine(case)
            case "preparing":
                await self._prepare(case)
            case "restoring":
                await self._restore(case)

    async def _nodes(self, case: Case) -> None:
        """Have the versioners put the alarm's rows back, and see what came of it."""
        alarm, step = case.alarm, case.last("nodes")
        assert step is not None, "it was told"
        backup = int(str(step.figures["backup"]))
        wanted = {
            table: RollbackRequested(request_of(alarm.alarm, f"nodes {table}").hex(), table, nodes, backup)
            for table, nodes in alarm.nodes.items()
            if nodes
        }
        asked = [each for each in wanted.values() if each.request not in self.ledger.requests]
        if asked:
            for request in asked:
                await self._means.announcer.tell(request)
            return
        answers = [self.ledger.requests[each.request] for each in wanted.values()]
        tables = await self._asking.tables()
        for answer in answers:
            if answer.refused:
                await self._step(case, "escalated", f"rows cannot be put back: {answer.refused}")
                return
            shards = shard_of(np.array(answer.request.ids, np.uint64), tables[answer.request.table])
            if not set(shards.tolist()) <= answer.shards:
                return  # not all versioners have answered
        client = self._asking.client
        for answer in answers:
            table = answer.request.table
            await wait_for_rows(client, table, tables[table], answer.ops, self._means.timeout)
        figures = {
            "backup": backup,
            "rows": sum(each.rows for each in answers),
            "op": max((op for each in answers for op in each.ops), default=case.seen),
        }
        await self._end(case, NODES, "the rows stand as the backup has them", "", figures)

    async def _quarantine(self, case: Case) -> None:
        step = case.last("quarantined")
        assert step is not None, "it was told"
        named = step.figures.get("producers")
        client, ops = self._asking.client, {}
        tables = await self._asking.tables()
        for producer in sorted(named) if isinstance(named, dict) else ():
            asked = await self._asking.ask(case, f"quarantine {producer}", QUARANTINE, {"producer": producer})
            await client.wait_for_op(tables, asked, self._means.timeout)
            ops[producer] = asked.number
        await self._step(case, "shut_out", "their frames go to the dead letters from here on", {"ops": ops})

    async def _choose(self, wanted: Choose) -> None:
        case = wanted.case
        found = await self._means.offload.run(self._asking.targets)
        target = choose(found, wanted)
        if target is None:
            known = ", ".join(f"{each.version} at {each.op}" for each in found[:5]) or "none"
            why = (
                f"no version to go back to: one that is not newer than op {wanted.before}"
                + (f" and older than op {wanted.below}" if wanted.below < 1 << 62 else "")
                + f" is needed, there are {known}"
            )
            await self._ask_for_person(case, why)
            return
        figures = {"version": target.version, "target": target.op, "passed": target.passed}
        findings = await self._means.offload.run(functools.partial(self._asking.check, target.version))
        if findings:
            await self._step(case, "skipped", f"fsck of {target.version}: {findings}", figures)
            return
        why = f"the newest version {'that passed' if target.passed else 'there is'}, cut before the onset"
        await self._step(case, "preparing", why, figures)

    async def _prepare(self, case: Case) -> None:
        step = case.last("preparing")
        assert step is not None, "it was told"
        client, version = self._asking.client, str(step.figures["version"])
        shards = await self._asking.tables()
        manifest = await self._means.offload.run(
            functools.partial(self._asking.client.repository.manifest, version)
        )
        tables = {name: count for name, count in shards.items() if name in manifest.tables}
        asked = await self._asking.ask(case, f"prepare {step.number}", PREPARE, {"version": version})
        try:
            async with asyncio.timeout(self._means.timeout):
                await client.wait_for_op(shards, asked, self._means.timeout)
                epochs = await until_ready(client, tables, asked)
        except (VersionUnloadableError, TimeoutError) as error:
            await give_up(client, asked)
            why = str(error) or f"not loaded by every shard within {self._means.timeout:g} s"
            await self._step(case, "skipped", why, step.figures)
            return
        figures = {**step.figures, "prepare": asked.number, "epochs": epochs}
        await self._step(case, "restoring", "every shard has its copy", figures)

    async def _restore(self, case: Case) -> None:
        step = case.last("restoring")
        assert step is not None, "it was told"
        client, figures = self._asking.client, step.figures
        version, epochs = str(figures["version"]), figures["epochs"]
        assert isinstance(epochs, dict), "as it was told"
        shards = await self._asking.tables()
        body = {
            "version": version,
            "prepare": figures["prepare"],
            "from_epoch": epochs,
            "mode": ROLLBACK,
            "alarm": case.alarm.alarm,
        }
        asked = await self._asking.ask(case, f"restore {step.number}", RESTORE, body)
        await client.wait_for_op(shards, asked, self._means.timeout)
        try:
            await check_taken(client, {name: shards[name] for name in epochs}, asked)
        except RestoreOvertakenError as error:
            await self._step(case, "skipped", str(error), {"version": "", "target": figures["target"]})
            return
        done = {"op": asked.number, "target": figures["target"], "passed": figures["passed"]}
        await self._end(case, RESTORED, "all shards stand at it", version, done)
