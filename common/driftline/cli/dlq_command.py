"""`driftline dlq`: what was refused, why, and what to do about it."""

from __future__ import annotations

import asyncio
import functools
import re
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Annotated

import orjson
import typer

from driftline.cli.options import AsJson, on_log, on_rows
from driftline.config import Settings, kafka_security
from driftline.dlq import DeadLetters, Letter, Outcome, Place, Refused, Replayed, wait_for
from driftline.dlq.letters import metadata, original_headers
from driftline.errors import FrameError, InputError
from driftline.frames.reasons import Reason
from driftline.frames.tensors import decode
from driftline.log import Record, open_log
from driftline.rows.connection import RedisConnection
from driftline.shard.screen import MAX_FRAME
from driftline.stack.run_file import redis_url as find_redis_url

app = typer.Typer(help="List, show, replay and drop dead letters.", no_args_is_help=True)

HEAD = 256
"""Bytes of a frame that `show` prints."""

_AGO = re.compile(r"(\d+)([smhd])")
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400}

Table = Annotated[
    str,
    typer.Argument(metavar="TABLE", help="A table, or a topic: GROUP.ops, driftline.ingest, GROUP.ingest."),
]
Places = Annotated[list[str] | None, typer.Argument(metavar="[GENERATION:]PARTITION:OFFSET...")]
WithReason = Annotated[
    str | None, typer.Option("--reason", help=f"Only these: {', '.join(Reason)}.", metavar="REASON")
]
Everything = Annotated[bool, typer.Option("--all", help="All open letters of the table.")]


@app.command("ls")
@on_log
def list_letters(
    settings: Settings,
    table: Table,
    reason: WithReason = None,
    since: Annotated[
        str | None, typer.Option(metavar="TIME", help="Refused since: 90s, 15m, 2h, 7d, or ISO 8601.")
    ] = None,
    everything: Annotated[bool, typer.Option("--all", help="Replayed and dropped ones too.")] = False,
    as_json: AsJson = False,
) -> None:
    """List the dead letters of a table, of an ops topic or of an ingest topic, each once."""
    begin = 0 if since is None else parse_since(since, time.time())

    async def run() -> Sequence[Letter]:
        async with open_log(settings.log_url, kafka_security(settings)) as log:
            dead = await DeadLetters.of(log, table)
            return await dead.letters(reason=_known(reason), since=begin, settled=everything)

    letters = asyncio.run(run())
    if as_json:
        typer.echo(orjson.dumps([as_dict(letter) for letter in letters], option=orjson.OPT_INDENT_2).decode())
        return
    for letter in letters:
        columns = (letter.place, letter.reason, when(letter.refused), letter.producer or "-", letter.size)
        typer.echo("\t".join(map(str, columns)) + (f"\t{letter.status}" if everything else ""))


@app.command()
@on_log
def show(
    settings: Settings,
    table: Table,
    place: Annotated[str, typer.Argument(metavar="[GENERATION:]PARTITION:OFFSET")],
    as_json: AsJson = False,
) -> None:
    """Print all that is known of one dead letter, and the head of its bytes."""

    async def run() -> tuple[Letter, Record]:
        async with open_log(settings.log_url, kafka_security(settings)) as log:
            return await (await DeadLetters.of(log, table)).find(Place.parse(place))

    letter, record = asyncio.run(run())
    if as_json:
        more = {
            "headers": {name: value.decode("utf-8", "replace") for name, value in original_headers(record)},
            "metadata": dict(metadata(record.value)),
            "tensors": list(tensors(record.value)),
            "head": record.value[:HEAD].hex(),
        }
        typer.echo(orjson.dumps(as_dict(letter) | more, option=orjson.OPT_INDENT_2).decode())
        return
    for line in described(table, letter, record):
        typer.echo(line)


@app.command()
@on_rows
def replay(
    settings: Settings,
    table: Table,
    places: Places = None,
    reason: WithReason = None,
    everything: Everything = False,
    wait: Annotated[bool, typer.Option("--wait", help="Say whether the shard took it.")] = False,
    timeout: Annotated[float, typer.Option(help="Seconds to wait.")] = 60.0,
) -> None:
    """Publish the frames of dead letters again; each is applied once, however often it is replayed.

    Requests for ops and JSON messages are not replayed: ask for the op anew, have the message sent again.
    Status 1 if any could not be replayed, or was refused again (with --wait).
    """
    _check_selection(places, reason, everything)

    connect = functools.partial(RedisConnection.open, find_redis_url(settings)) if wait else None

    async def run() -> tuple[Sequence[Replayed | Refused], Sequence[Outcome]]:
        async with open_log(settings.log_url, kafka_security(settings)) as log:
            dead = await DeadLetters.of(log, table)
            done = await dead.replay(await _selected(dead, places, reason))
            if connect is None:
                return done, []
            replayed = [each for each in done if isinstance(each, Replayed)]
            return done, await wait_for(dead, table, replayed, connect, timeout=timeout)

    done, outcomes = asyncio.run(run())
    came_of = {outcome.replayed.place: outcome for outcome in outcomes}
    failed = 0
    for each in done:
        if isinstance(each, Refused):
            typer.echo(f"{each.place}\tnot replayed: {each.why}")
            failed += 1
            continue
        again = came_of[each.place].refused if each.place in came_of else None
        failed += again is not None
        passed = "\ttaken" if wait else ""
        typer.echo(
            f"{each.place}\treplayed at {each.again}" + (f"\trefused: {again.message}" if again else passed)
        )
    typer.echo(f"{len(done) - failed} of {len(done)} replayed")
    raise typer.Exit(1 if failed else 0)


@app.command()
@on_log
def drop(
    settings: Settings,
    table: Table,
    places: Places = None,
    reason: WithReason = None,
    everything: Everything = False,
) -> None:
    """Mark dead letters as dealt with; nothing is removed, `ls --all` still shows them."""
    _check_selection(places, reason, everything)

    async def run() -> Sequence[Place | Refused]:
        async with open_log(settings.log_url, kafka_security(settings)) as log:
            dead = await DeadLetters.of(log, table)
            return await dead.drop(await _selected(dead, places, reason))

    done = asyncio.run(run())
    refused = [each for each in done if isinstance(each, Refused)]
    for each in refused:
        typer.echo(f"{each.place}\tnot dropped: {each.why}")
    typer.echo(f"{len(done) - len(refused)} of {len(done)} dropped")
    raise typer.Exit(1 if refused else 0)


def parse_since(text: str, now: float) -> int:
    """Return the time that `text` means, in milliseconds; `now` is in seconds. Raises InputError.

    Examples
    --------
    >>> parse_since("15m", 1000.0), parse_since("1970-01-01T00:01:00Z", 1000.0)
    (100000, 60000)
    """
    ago = _AGO.fullmatch(text) if text.isascii() else None
    if ago is not None:
        return round((now - int(ago[1]) * _SECONDS[ago[2]]) * 1000)
    try:
        at = datetime.fromisoformat(text)
    except ValueError:
        raise InputError(f"{text!r} is no time: write 90s, 15m, 2h, 7d or 2030-01-31T12:00:00Z") from None
    return round((at if at.tzinfo else at.replace(tzinfo=UTC)).timestamp() * 1000)


def when(milliseconds: int) -> str:
    """Return a log time in words, UTC."""
    return datetime.fromtimestamp(milliseconds / 1000, UTC).isoformat(timespec="milliseconds")


def as_dict(letter: Letter) -> dict[str, object]:
    """Return a letter for JSON."""
    own = {
        name: value for name, value in asdict(letter).items() if name not in ("at", "place", "replayed_at")
    }
    again = None if letter.replayed_at is None else str(letter.replayed_at)
    times = {"refused": when(letter.refused), "sent": when(letter.sent)}
    return {"place": str(letter.place)} | own | times | {"replayed_at": again}


def described(table: str, letter: Letter, record: Record) -> Iterator[str]:
    """Yield what is known of a letter, line by line."""
    meaning = next((reason.meaning for reason in Reason if reason == letter.reason), "of another release")
    yield f"dead letter {letter.place} of {table}: {letter.status}" + (
        f" at {letter.replayed_at}" if letter.replayed_at else ""
    )
    yield f"reason    {letter.reason}: {meaning}"
    yield f"message   {letter.message}"
    yield f"sent      {when(letter.sent)}"
    yield f"refused   {when(letter.refused)}"
    yield f"size      {letter.size} bytes" + (f", the first {len(record.value)} kept" if letter.cut else "")
    for name, value in original_headers(record):
        yield f"header    {name}: {value.decode('utf-8', 'backslashreplace')}"
    for name, text in metadata(record.value).items():
        yield f"metadata  {name}: {text if len(text) <= 200 else text[:200] + ' …'}"
    for tensor in tensors(record.value):
        yield f"tensor    {tensor}"
    yield from hexdump(record.value[:HEAD])


def tensors(value: bytes) -> Iterator[str]:
    """Yield name, type and shape of each tensor; none if the frame does not decode."""
    try:
        frame = decode(value, limit=MAX_FRAME)
    except FrameError:
        return
    for name, tensor in frame.tensors.items():
        yield f"{name} {frame.kinds[name]}{list(tensor.shape)}"


def hexdump(data: bytes) -> Iterator[str]:
    """Yield sixteen bytes a line, in hex and as text."""
    for at in range(0, len(data), 16):
        row = data[at : at + 16]
        text = "".join(chr(byte) if 32 <= byte < 127 else "." for byte in row)
        yield f"{at:08x}  {row.hex(' ', 1):<47}  {text}"


def _check_selection(places: Sequence[str] | None, reason: str | None, everything: bool) -> None:
    if sum((bool(places), reason is not None, everything)) != 1:
        raise InputError("name dead letters as PARTITION:OFFSET, or give --reason, or --all: one of them")


async def _selected(dead: DeadLetters, places: Sequence[str] | None, reason: str | None) -> Sequence[Place]:
    if places:
        return [Place.parse(text) for text in places]
    return [letter.place for letter in await dead.letters(reason=_known(reason))]


def _known(reason: str | None) -> str | None:
    if reason is not None and reason not in set(Reason):
        raise InputError(f"{reason!r} is no reason: {', '.join(Reason)}")
    return reason
