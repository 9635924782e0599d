"""`driftline drift status|watch|approve|reject`: what the monitors say, and what a person answers."""

from __future__ import annotations

import asyncio
import getpass
import socket
import uuid
from collections.abc import Awaitable, Callable
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer

from driftline import clock, topics
from driftline.cli.options import AsJson, on_log
from driftline.cli.version_options import print_json
from driftline.config import Settings, kafka_security, signing_key
from driftline.errors import FrameError, InputError
from driftline.frames.headers import Keyring
from driftline.log import Log, check_exists, open_log

if TYPE_CHECKING:
    from driftline.control import DriftVerdict
    from driftline.control.ledger import Case, Ledger

_T = TypeVar("_T")
_WAIT = 0.5
Why = Annotated[str, typer.Option("--why", help="Your reason, for the record.")]
Who = Annotated[str | None, typer.Option("--who", help="Who says so; default: user@host.")]


@on_log
def status(
    settings: Settings,
    as_json: AsJson = False,
) -> None:
    """Show the last verdict on each table, and the alarm that is open with all that was done about it."""
    from driftline.control.wording import in_words

    ledger = asyncio.run(_with_log(settings, lambda log: _ledger(log, settings.group)))
    verdicts = _latest(ledger)
    case = ledger.open
    last = next(iter(ledger.ended()), None)
    if as_json:
        print_json(
            {
                "verdicts": [asdict(each) for each in verdicts],
                "open": _case(case) if case is not None else None,
                "last": _case(last) if last is not None else None,
            }
        )
        return
    if not verdicts:
        typer.echo(f"no drift monitor has said anything of group {settings.group}")
    for each in verdicts:
        typer.echo(in_words(each))
    for title, found in (("open", case), ("last", last)):
        if found is not None:
            typer.echo(f"{title} alarm:")
            said = [found.alarm, *found.steps, *found.answers, found.needs_person, found.ended]
            for event in said:
                if event is not None:
                    typer.echo(f"  {in_words(event)}")
    if case is None:
        typer.echo("no alarm is open")


@on_log
def watch(
    settings: Settings,
    every: Annotated[bool, typer.Option("--all", help="Verdicts that all is well, too.")] = False,
    seconds: Annotated[float | None, typer.Option("--for", help="End after so many seconds.")] = None,
) -> None:
    """Follow what is told of drift from now on, until Ctrl-C."""
    asyncio.run(_with_log(settings, lambda log: _follow(log, settings.group, seconds, every=every)))


@on_log
def approve(
    settings: Settings,
    alarm: Annotated[int, typer.Argument(help="Its number.")],
    why: Why = "",
    who: Who = None,
) -> None:
    """Have what an alarm calls for done: rows, or the whole group, go back."""
    _answer(
        settings,
        alarm,
        "approve",
        who,
        why,
    )


@on_log
def reject(
    settings: Settings,
    alarm: Annotated[int, typer.Argument(help="Its number.")],
    why: Why = "",
    who: Who = None,
) -> None:
    """Say that an alarm is none: nothing goes back, and training is judged on."""
    _answer(settings, alarm, "reject", who, why)


def _answer(settings: Settings, alarm: int, answer: str, who: str | None, why: str) -> None:
    from driftline.control import AlarmAnswered, ControlTopic

    async def run(log: Log) -> None:
        case = (await _ledger(log, settings.group)).open
        if case is None or case.alarm.alarm != alarm:
            known = f"alarm {case.alarm.alarm} is" if case is not None else "none is"
            raise InputError(f"alarm {alarm} is not open; {known}. `driftline drift status` shows it")
        name = who or f"{getpass.getuser()}@{socket.gethostname()}"
        topic = ControlTopic(log, settings.group, Keyring.parse(signing_key(settings)))
        await topic.tell(AlarmAnswered(alarm, answer, name, why, uuid.uuid4().hex))

    asyncio.run(_with_log(settings, run))
    typer.echo(f"alarm {alarm}: {answer}; `driftline drift status` shows what comes of it")


async def _with_log(settings: Settings, work: Callable[[Log], Awaitable[_T]]) -> _T:
    check_exists(settings.log_url)
    async with open_log(settings.log_url, kafka_security(settings)) as log:
        return await work(log)


async def _ledger(log: Log, group: str) -> Ledger:
    from driftline.control.held import told_of
    from driftline.control.ledger import Ledger

    ledger = Ledger()
    for told in await told_of(log, group):
        ledger.note(told)
    return ledger


async def _follow(log: Log, group: str, seconds: float | None, *, every: bool) -> None:
    from driftline.control import DriftVerdict
    from driftline.control.wire import read_unverified
    from driftline.control.wording import in_words

    await log.create_topic(topics.control(), 1)
    bounds = await log.bounds(topics.control(), 0)
    reader = log.reader(topics.control(), 0, bounds.end)
    until = None if seconds is None else clock.monotonic() + seconds
    try:
        while until is None or clock.monotonic() < until:
            for record in await reader.read(wait=_WAIT):
                try:
                    told = read_unverified(record)
                except FrameError:
                    continue  # not an event: nothing to be shown
                quiet = isinstance(told.event, DriftVerdict) and told.event.action == "none"
                said = in_words(told.event) if told.group == group and (every or not quiet) else None
                if said is not None:
                    typer.echo(said)
    finally:
        await reader.close()


def _latest(ledger: Ledger) -> list[DriftVerdict]:
    last = max(ledger.verdicts, default=0)
    newest = {
        scope: verdict for op in sorted(ledger.verdicts) for scope, verdict in ledger.verdicts[op].items()
    }
    # scopes of instances that have long since shared the shards otherwise are no news
    return [each for _, each in sorted(newest.items()) if ledger.ticks_after(each.op) <= 1 or each.op == last]


def _case(case: Case) -> dict[str, object]:
    return {
        "alarm": asdict(case.alarm),
        "steps": [asdict(each) for each in case.steps],
        "answers": [asdict(each) for each in case.answers],
        "person": asdict(case.needs_person) if case.needs_person is not None else None,
        "ended": asdict(case.ended) if case.ended is not None else None,
    }
