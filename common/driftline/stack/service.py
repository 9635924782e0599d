"""One service of a local run, kept up.

Invariant: a service that ends is started again as it was, unless no restart can mend it: a wrong
setting, or an end right after each start; then it says so, with its own last words.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from pathlib import Path

from driftline import clock
from driftline.errors import ConfigError, DriftlineError, StateError
from driftline.servers.child import Child

_logger = logging.getLogger(__name__)
_QUICK = 5.0  # seconds of life below which an end counts as quick
QUICK_ENDS = 5  # in a row, before the keeping is given up
_WRONG_SETTINGS = 2  # exit status of a service that cannot run as it is set up
_TOLD_LINES = 3


class Service:
    """A child process; `start` starts one.

    Parameters
    ----------
    title: what it is called in messages, "the aggregator".
    log: path of its log.
    """

    def __init__(self, title: str, log: Path, start: Callable[[], Child], now: clock.Clock) -> None:
        self.title, self.log, self._start, self._clock = title, log, start, now
        self._child = start()
        self._started = now()
        self._quick_ends = 0

    def keep(self) -> DriftlineError | bool:
        """Start it again if it has ended; return whether that was so, or why it is not started again."""
        if self._child.alive:
            return False
        failure = self._judge()
        if failure is not None:
            return failure
        _logger.warning("%s ended; starting it again, its log is %s", self.title, self.log)
        for line in last_errors(self._child.output()):
            _logger.warning("it said: %s", line)
        self._child, self._started = self._start(), self._clock()
        return True

    def stop(self, timeout: float) -> None:
        """End it in order."""
        self._child.stop(timeout)

    def _judge(self) -> DriftlineError | None:
        """Return why it is not to be started again, None if it is."""
        said = "\n".join(last_errors(self._child.output())) or "it said nothing"
        if self._child.exit_status == _WRONG_SETTINGS:
            return ConfigError(f"{self.title} cannot run, and no restart would help:\n{said}")
        quick = self._clock() - self._started < _QUICK
        self._quick_ends = self._quick_ends + 1 if quick else 0
        if self._quick_ends < QUICK_ENDS:
            return None
        return StateError(
            f"{self.title} ended {self._quick_ends} times within {_QUICK:g} s of its start, the last time "
            f"with status {self._child.exit_status}; its log is {self.log}:\n{said}"
        )


def last_errors(output: str) -> Sequence[str]:
    """Return the last line of a service's log that tells of an error and the end of what follows it.

    What follows is a traceback, whose last line says what happened. Without such a line: the last ones.

    Examples
    --------
    >>> last_errors("1 INFO a: fine\\n2 ERROR b: stopped\\nTraceback:\\n  ...\\nValueError: 7")
    ['2 ERROR b: stopped', 'ValueError: 7']
    """
    lines = [line for line in output.splitlines() if line.strip()]
    errors = [at for at, line in enumerate(lines) if " ERROR " in line or " CRITICAL " in line]
    if not errors:
        return lines[-_TOLD_LINES:]
    return [lines[errors[-1]], *lines[errors[-1] + 1 :][-1:]]
