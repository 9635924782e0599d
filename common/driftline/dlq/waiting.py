"""Did a replayed frame make it? Waits until its shard has passed it.

Invariant: a dead letter is in the log before the commit that passes its record, so once
the position has passed a frame, there is a new letter for it or there never will be.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass

from driftline.dlq.letters import At, Letter
from driftline.dlq.queue import DeadLetters, Replayed
from driftline.errors import TimedOutError
from driftline.rows.connection import Connect
from driftline.rows.fields import read_fields
from driftline.rows.layout import ShardKeys

_POLL = 0.02


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a replayed frame; `refused` is its new letter, None if the shard took it."""

    replayed: Replayed
    refused: Letter | None


async def wait_for(
    letters: DeadLetters, table: str, replayed: Sequence[Replayed], connect: Connect, *, timeout: float = 60.0
) -> Sequence[Outcome]:
    """Return what became of `replayed`, once their shards' positions in Redis have passed them.

    Raises TimedOutError when no aggregator gets there in time, StoreUnavailableError.
    """
    try:
        async with asyncio.timeout(timeout):
            for each in replayed:
                await _passed(connect, table, each.again)
    except TimeoutError:
        raise TimedOutError(
            f"table {table}: {each.again} was not passed within {timeout} s; does an aggregator run? "
            "The frames are in the log and will be applied"
        ) from None
    outcomes = []
    for each in replayed:
        new = await letters.since(each.again.partition, each.letters_end)
        refused = next((letter for letter in new if _at(letter) == each.again), None)
        outcomes.append(Outcome(each, refused))
    return outcomes


def _at(letter: Letter) -> At:
    """Return where the refused record is, in the log as it is now: the letter is younger than a replay."""
    return At(letter.place.partition, letter.place.offset)


async def _passed(connect: Connect, table: str, place: At) -> None:
    while True:
        (value,) = await read_fields(connect, ShardKeys.of(table, place.partition), b"next")
        if int(value or b"0") > place.offset:
            return
        await asyncio.sleep(_POLL)
