"""An aggregator that dies by SIGKILL in the middle of an op: `python -m tests.support.dying_aggregator`.

`DRIFTLINE_TESTS_DIE_OF` is the kind of the op, `DRIFTLINE_TESTS_DIE_IN` the moment (see MOMENTS), and
`DRIFTLINE_TESTS_DIE_WHEN` a file: it lives on while there is none. Nothing of the product knows of them.
"""

from __future__ import annotations

import functools
import inspect
import os
import signal
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from driftline.errors import FrameError
from driftline.frames.events import BARRIER, PREPARE, RESTORE, RESTORE_ROWS, Op, read_event
from driftline.frames.states import Marker
from driftline.log import Outgoing, Record
from driftline.rows import staging
from driftline.rows.shard_store import ShardStore
from driftline.shard.machine import Shard
from driftline.shard.plan import PendingOp
from driftline.shard.screen import MAX_FRAME
from driftline_services.aggregator import router
from driftline_services.aggregator.__main__ import main
from driftline_services.aggregator.restoring import Restoring
from driftline_services.aggregator.router import Router
from driftline_services.aggregator.runner import ShardRunner
from driftline_services.aggregator.updates import Updates

Step = Callable[..., Any]
BEFORE, AFTER = "before", "after"


@dataclass(frozen=True, slots=True)
class Moment:
    """A step of the product, and on which side of it the process dies."""

    owner: object
    step: str
    side: str
    kinds: frozenset[str] = frozenset({BARRIER, PREPARE, RESTORE, RESTORE_ROWS})


_MARKED = frozenset({BARRIER, PREPARE, RESTORE})  # rows put back are told by their states
_COPIED, _SWAPPED = frozenset({PREPARE}), frozenset({RESTORE})
_COMMITTED = frozenset({BARRIER, PREPARE, RESTORE_ROWS})

MOMENTS: Mapping[str, Moment] = {
    "op read": Moment(Router, "forward", BEFORE),
    "forwarded to one shard": Moment(router, "append", AFTER),
    "forwarded": Moment(Router, "forward", AFTER),
    "read by a shard": Moment(ShardRunner, "_pass", BEFORE),
    "applied": Moment(Shard, "apply_op", AFTER),
    "marked": Moment(Updates, "mark", AFTER, _MARKED),
    "committed": Moment(ShardStore, "commit", AFTER, _COMMITTED),
    "swapped": Moment(ShardStore, "swap", AFTER, _SWAPPED),
    "passed": Moment(ShardRunner, "_pass", AFTER),
    "copy begun": Moment(staging, "_write_page", BEFORE, _COPIED),
    "copy in part": Moment(staging, "_write_page", AFTER, _COPIED),
    "copy ready": Moment(Restoring, "_load", AFTER, _COPIED),
}
"""In the order in which they come."""

_BY_OP = frozenset({"forward", "append", "_pass", "apply_op", "mark"})  # their arguments say which op it is
_OF_COPY = frozenset({"_write_page", "_load"})  # made for a prepare alone


class Killer:
    """Kills this process at one moment of ops of one kind."""

    def __init__(self, kind: str, armed: Path) -> None:
        self._kind, self._armed = kind, armed
        self._applied = False  # such an op is applied: the next commit is its own

    def at(self, moment: Moment) -> None:
        """Have the process die at a moment."""
        self._wrap(Shard, "apply_op", AFTER, self._note)
        self._wrap(moment.owner, moment.step, moment.side, self._die)

    def _wrap(self, owner: object, step: str, side: str, do: Callable[[], None]) -> None:
        real: Step = getattr(owner, step)

        def due(arguments: tuple[object, ...]) -> bool:
            if step in _BY_OP:
                return any(self._kind == kind for each in arguments for kind in kinds_of(each))
            return step in _OF_COPY or self._applied

        @functools.wraps(real)
        async def waits(*arguments: Any, **more: Any) -> Any:
            if side == BEFORE and due(arguments):
                do()
            result = await real(*arguments, **more)
            if side == AFTER and due(arguments):
                do()
            return result

        @functools.wraps(real)
        def plain(*arguments: Any, **more: Any) -> Any:
            result = real(*arguments, **more)
            if due(arguments):
                do()
            return result

        setattr(owner, step, waits if inspect.iscoroutinefunction(real) else plain)

    def _note(self) -> None:
        self._applied = True

    def _die(self) -> None:
        if self._armed.exists():
            os.kill(os.getpid(), signal.SIGKILL)


def kinds_of(argument: object) -> list[str]:
    """Return the kinds of the ops that an argument of a step is, or holds."""
    if isinstance(argument, PendingOp):
        return [argument.op.kind]
    if isinstance(argument, Marker):
        return [argument.kind]
    if isinstance(argument, list):
        return [kind for each in argument for kind in kinds_of(each)]
    if isinstance(argument, Record | Outgoing):
        try:
            event = read_event(argument.value, limit=MAX_FRAME)
        except FrameError:
            return []
        return [event.kind] if isinstance(event, Op) else []
    return []


if __name__ == "__main__":
    environ = os.environ
    killer = Killer(environ["DRIFTLINE_TESTS_DIE_OF"], Path(environ["DRIFTLINE_TESTS_DIE_WHEN"]))
    killer.at(MOMENTS[environ["DRIFTLINE_TESTS_DIE_IN"]])
    sys.exit(main())
