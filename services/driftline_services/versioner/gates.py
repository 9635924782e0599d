"""The evaluators of a deployment, run side by side under one time-out.

Invariant: each evaluator gives exactly one judgement, whatever it does: one that raises, hangs or
answers nonsense has not evaluated, and the reason says so.
"""

from __future__ import annotations

import asyncio
import importlib
import inspect
import logging
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass

import aiohttp
import orjson

from driftline.errors import ConfigError
from driftline.versions.gating import (
    Better,
    Candidate,
    Evaluator,
    FigureGate,
    Judgement,
    Outcome,
    Status,
    Unanswered,
    decide,
    finite_figures,
)

_logger = logging.getLogger(__name__)
_ANSWER = 64 << 10  # bytes of an answer that are read


@dataclass(frozen=True, slots=True)
class Gates:
    """All evaluators, and what becomes of a version that one of them did not judge."""

    evaluators: Sequence[Evaluator] = ()
    unanswered: Unanswered = Unanswered.STORE
    timeout: float = 60.0

    async def judge(self, candidate: Candidate) -> Outcome | None:
        """Return the outcome; None without evaluators."""
        if not self.evaluators:
            return None
        judgements = await asyncio.gather(*(self._ask(each, candidate) for each in self.evaluators))
        outcome = decide(judgements, self.unanswered, self.timeout)
        _logger.info("op %d: gate %s", candidate.op, "passed" if outcome.accepted else outcome.reason)
        return outcome

    async def _ask(self, evaluator: Evaluator, candidate: Candidate) -> Judgement:
        try:
            async with asyncio.timeout(self.timeout):
                return await evaluator.evaluate(candidate)
        except TimeoutError:
            reason = f"no answer within {self.timeout:g} s"
        except Exception as error:  # noqa: BLE001 - an evaluator is foreign code: it must not stop versions
            reason = f"{type(error).__name__}: {error}"
        return Judgement(evaluator.name, Status.NOT_EVALUATED, reason)


@dataclass(frozen=True, slots=True)
class CallGate:
    """A Python function of `Candidate`, plain or async, that returns a `Judgement` or a truth value."""

    path: str
    function: Callable[[Candidate], object]

    @property
    def name(self) -> str:
        """What it is called in manifests."""
        return f"call:{self.path}"

    async def evaluate(self, candidate: Candidate) -> Judgement:
        """Call it; a plain function is called in a thread of its own."""
        if inspect.iscoroutinefunction(self.function):
            said = await self.function(candidate)
        else:
            said = await asyncio.to_thread(self.function, candidate)
        if isinstance(said, Judgement):
            return Judgement(self.name, said.status, said.reason, said.figures)
        if isinstance(said, bool):
            return Judgement(self.name, Status.PASSED if said else Status.FAILED, f"returned {said}")
        return Judgement(self.name, Status.NOT_EVALUATED, f"returned {type(said).__name__}, no judgement")


@dataclass(frozen=True, slots=True)
class HttpGate:
    """Posts the candidate as JSON; the answer is {"status": …, "reason"?: …, "figures"?: {…}}.

    Whoever answers may take as long as the gate's time-out: an A/B test of minutes, say.
    """

    url: str
    shown: str  # without credentials

    @property
    def name(self) -> str:
        """What it is called in manifests."""
        return self.shown

    async def evaluate(self, candidate: Candidate) -> Judgement:
        """Ask the service."""
        body = orjson.dumps(asdict(candidate))
        headers = {"Content-Type": "application/json"}
        async with (
            aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=None)) as session,
            session.post(self.url, data=body, headers=headers) as answer,
        ):
            text = await answer.content.read(_ANSWER)
            if answer.status != 200:
                return self._unanswered(f"HTTP status {answer.status}")
        try:
            said = orjson.loads(text)
            status = Status(said["status"])
        except (orjson.JSONDecodeError, KeyError, TypeError, ValueError):
            return self._unanswered(
                'its answer is no JSON with a "status" of passed, failed or not_evaluated'
            )
        return Judgement(self.name, status, str(said.get("reason", "")), finite_figures(said.get("figures")))

    def _unanswered(self, reason: str) -> Judgement:
        return Judgement(self.name, Status.NOT_EVALUATED, reason)


def parse_gates(text: str, redact: Callable[[str], str], *named: Evaluator) -> tuple[Evaluator, ...]:
    """Return the evaluators that the setting `version_gates` names. Raises ConfigError.

    `named`: those that are called by their names alone.
    """
    known = {each.name: each for each in named}
    return tuple(known.get(each) or _parse(each, redact) for each in text.split())


def _parse(text: str, redact: Callable[[str], str]) -> Evaluator:
    kind, _, rest = text.partition(":")
    if kind == "figure":
        figure, better, tolerance = rest.rsplit(":", 2)
        relative = tolerance.endswith("%")
        number = float(tolerance.rstrip("%"))
        return FigureGate(figure, Better(better), number / 100 if relative else number, relative)
    if kind == "call":
        return CallGate(rest, _function(rest))
    return HttpGate(text, redact(text))


def _function(path: str) -> Callable[[Candidate], object]:
    module, _, name = path.rpartition(".")
    try:
        found = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        raise ConfigError(f"version_gates: call:{path}: {error}; put its module on PYTHONPATH") from error
    if not callable(found):
        raise ConfigError(f"version_gates: call:{path} is {type(found).__name__}, not a function")
    function: Callable[[Candidate], object] = found
    return function
