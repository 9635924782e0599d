"""What the drift monitor says while a demo runs, as the demo shows it.

Invariant: reads the control topic and nothing else; what is shown is what is told there.
"""

from __future__ import annotations

import asyncio
import threading
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from driftline import clock
from driftline.control import ControlEvent, ControlTopic, DriftVerdict, RecoveryEnded
from driftline.control.ledger import Ledger
from driftline.control.wording import in_words
from driftline.errors import DriftlineError
from driftline.frames.headers import Keyring
from driftline.log import open_log
from driftline.stack.local import Endpoints

_WAIT = 0.2
_POLL = 0.05
_JUDGING = frozenset({"ok", "warning", "deviating", "alarm", "cooling"})


@dataclass(frozen=True, slots=True)
class RolledBack:
    """An alarm that was dealt with."""

    alarm: int  # op of the barrier of its first verdict
    table: str
    rule: str  # which one spoke
    outcome: str  # nodes_restored, restored, …
    version: str  # that the group went back to
    rows: int  # named by the alarm
    onset: int


class DriftWatch:
    """Follows the control topic in a thread; `show` gets each line that is no verdict of health."""

    def __init__(self, endpoints: Endpoints, show: Callable[[str], None]) -> None:
        self._endpoints, self._show = endpoints, show
        self._ledger = Ledger()
        self._lock = threading.Lock()
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._run, name="drift watch", daemon=True)
        self._standings: Counter[str] = Counter()
        self._latest: dict[str, str] = {}
        self._judged: dict[str, int] = {}

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ending.set()
        self._thread.join()

    @property
    def verdicts(self) -> dict[str, int]:
        """How many ticks were judged to be what."""
        with self._lock:
            return dict(sorted(self._standings.items()))

    @property
    def line(self) -> str:
        """What is known now, in one line."""
        with self._lock:
            case = self._ledger.open
            now = ", ".join(f"{table} {standing}" for table, standing in sorted(self._latest.items()))
            undone = sum(each.ended is not None for each in self._ledger.cases.values())
            alarm = (
                f"alarm {case.alarm.alarm}: {case.steps[-1].step if case.steps else 'raised'}; "
                if case
                else ""
            )
            return f"{alarm}{now or 'no verdict yet'}; {undone} undone"

    @property
    def rollbacks(self) -> tuple[RolledBack, ...]:
        """The alarms that were dealt with, oldest first."""
        with self._lock:
            cases = [(each.alarm, each.ended) for each in self._ledger.cases.values()]
        return tuple(
            RolledBack(
                alarm.alarm,
                alarm.table,
                alarm.rule,
                end.outcome,
                end.version,
                sum(map(len, alarm.nodes.values())),
                alarm.onset,
            )
            for alarm, end in cases
            if end is not None
        )

    def judges(self, tables: int) -> bool:
        """Tell whether all tables are judged by now, and no alarm is open."""
        with self._lock:
            able = [standing in _JUDGING - {"cooling"} for standing in self._latest.values()]
            return len(able) >= tables and all(able) and self._ledger.open is None

    def settle(self, op: int, tables: int, seconds: float) -> bool:
        """Return once all tables are judged up to barrier `op` and no alarm is open; False: not in time."""
        until = clock.monotonic() + seconds
        while clock.monotonic() < until:
            with self._lock:
                done = [judged for judged in self._judged.values() if judged >= op]
                calling = self._ledger.calling(max((each.covers for each in self._ledger.ended()), default=0))
                if len(done) >= tables and self._ledger.open is None and not calling:
                    return True
            self._ending.wait(_POLL)
        return False

    def _run(self) -> None:
        while not self._ending.is_set():
            try:
                asyncio.run(self._follow())
            except DriftlineError as error:
                self._show(f"drift watch: {error}")
                self._ending.wait(1.0)

    async def _follow(self) -> None:
        endpoints = self._endpoints
        async with open_log(endpoints.log_url, endpoints.security) as log:
            topic = ControlTopic(log, endpoints.group, Keyring.parse(endpoints.key))
            await topic.create()
            reader = await topic.reader(self._ledger.offset)
            try:
                while not self._ending.is_set():
                    for told in await reader.read(wait=_WAIT):
                        with self._lock:
                            self._ledger.note(told)
                            if isinstance(told.event, DriftVerdict):
                                self._note(told.event)
                        self._tell(told.event)
            finally:
                await reader.close()

    def _note(self, verdict: DriftVerdict) -> None:
        self._standings[verdict.standing] += 1
        self._latest[verdict.table] = verdict.standing
        self._judged[verdict.table] = max(self._judged.get(verdict.table, 0), verdict.op)

    def _tell(self, event: ControlEvent) -> None:
        if isinstance(event, DriftVerdict) and event.action == "none":
            return
        said = in_words(event)
        if said is not None:
            self._show(said if not isinstance(event, RecoveryEnded) else f"{said}: training goes on")
