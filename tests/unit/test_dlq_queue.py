"""Dead letters on an embedded log: listed, replayed, dropped; the shard's part is in tests/integration."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from pathlib import Path

import numpy as np
import pytest
import pytest_asyncio

from driftline import topics
from driftline.dlq import At, DeadLetters, Letter, Place, Refused, Replayed, Status
from driftline.errors import InputError, UnknownTableError
from driftline.frames.events import Gradient, Op, Origin, Upsert, read_event, write_event
from driftline.frames.reasons import Reason
from driftline.frames.tensors import decode
from driftline.ids import OPS_PRODUCER, producer_id
from driftline.log import Headers, Log, Record, open_log
from driftline.shard.plan import Rejected
from driftline.shard.screen import MAX_FRAME
from driftline_services.aggregator.dead_letters import dead_letter

SHARDS = 2
ORIGIN = Origin(b"p" * 16, 3, 99)
IDS = np.arange(3, dtype=np.uint64)
ROWS = np.full((3, 2), 0.5, np.float32)
GRADIENT = Gradient("t", 1, ORIGIN, IDS, ROWS, 77, np.float32(0.25))


@pytest_asyncio.fixture
async def log(tmp_path: Path) -> AsyncIterator[Log]:
    async with open_log(f"local://{tmp_path}/log") as opened:
        for topic in (topics.gradients("t"), topics.dead_letters("t")):
            await opened.create_topic(topic, SHARDS)
        yield opened


@pytest_asyncio.fixture
async def dead(log: Log) -> DeadLetters:
    return await DeadLetters.of(log, "t")


async def refuse(
    log: Log,
    place: Place,
    value: bytes,
    reason: Reason = Reason.OVERSIZED,
    headers: Headers = (),
) -> None:
    rejected = Rejected(Record(place.offset, 1, None, value, headers), reason, f"{reason}: so it is")
    letter = dead_letter("t", place.partition, rejected)
    await log.append(topics.dead_letters("t"), place.partition, [letter])


async def published(log: Log, partition: int) -> list[Record]:
    bounds = await log.bounds(topics.gradients("t"), partition)
    reader = log.reader(topics.gradients("t"), partition, 0)
    try:
        return list(await reader.read(wait=1.0)) if bounds.end else []
    finally:
        await reader.close()


async def test_a_table_that_is_not_there_is_named(log: Log) -> None:
    with pytest.raises(UnknownTableError, match="'other'"):
        await DeadLetters.of(log, "other")


async def test_a_name_that_is_nearly_a_table_s_is_answered_with_it(log: Log) -> None:
    await log.create_topic(topics.dead_letters("interactions"), 1)
    with pytest.raises(UnknownTableError, match="did you mean interactions"):
        await DeadLetters.of(log, "interaction")


@pytest.mark.parametrize(
    ("source", "place", "why"),
    [("default.ops", Place(0, 7), "ask for the op anew"), ("driftline.ingest", Place(3, 7), "send it again")],
)
async def test_letters_of_a_topic_that_is_no_table_s_are_found_and_dropped_but_not_replayed(
    log: Log, source: str, place: Place, why: str
) -> None:
    await log.create_topic(f"{source}.dlq", 1)
    rejected = Rejected(Record(place.offset, 1, None, b"{}"), Reason.BAD_MESSAGE, "bad")
    await log.append(f"{source}.dlq", 0, [dead_letter(source, place.partition, rejected)])
    letters = await DeadLetters.of(log, source)
    assert [each.place for each in await letters.letters()] == [place]
    (refused,) = await letters.replay([place])
    assert isinstance(refused, Refused)
    assert why in refused.why
    assert (await letters.find(place))[1].value == b"{}"
    assert await letters.drop([place]) == [place]
    assert not await letters.letters()


async def test_letters_come_by_place_each_once(log: Log, dead: DeadLetters) -> None:
    for place in (Place(1, 9), Place(0, 4), Place(1, 9), Place(1, 2)):
        await refuse(log, place, write_event(GRADIENT))
    assert [letter.place for letter in await dead.letters()] == [Place(0, 4), Place(1, 2), Place(1, 9)]


async def test_letters_are_chosen_by_reason_and_time(log: Log, dead: DeadLetters) -> None:
    await refuse(log, Place(0, 1), b"", Reason.TRUNCATED)
    await refuse(log, Place(0, 2), b"", Reason.FORGED)
    (forged,) = await dead.letters(reason="forged")
    assert forged.place == Place(0, 2)
    assert await dead.letters(since=forged.refused + 1) == []
    assert forged in await dead.letters(since=forged.refused)


@pytest.mark.parametrize("dtype", ["F32", "F16", "BF16"])
async def test_a_replayed_frame_says_the_same_under_a_producer_of_its_own(
    log: Log, dead: DeadLetters, dtype: str
) -> None:
    trace: Headers = (("traceparent", b"00-a-b-01"), ("dl-mac", b"0"))
    await refuse(log, Place(0, 7), write_event(GRADIENT, as_dtype=dtype), Reason.WRONG_SHARD, trace)
    (done,) = await dead.replay([Place(0, 7)])
    assert done == Replayed(Place(0, 7), At(1, 0), 0), "to the shard that the frame names"
    (record,) = await published(log, 1)
    event = read_event(record.value, limit=MAX_FRAME)
    assert isinstance(event, Gradient)
    assert event.origin == Origin(producer_id("dlq:0:7"), 0, 0)
    assert (event.table, event.shard, event.read_pos, event.lr) == ("t", 1, 77, np.float32(0.25))
    assert np.array_equal(event.ids, IDS)
    assert np.array_equal(event.grads, ROWS)
    assert decode(record.value, limit=MAX_FRAME).kinds["grads"] == dtype
    names = [name for name, _ in record.headers]
    assert "traceparent" in names
    assert "dl-mac" not in names


async def test_what_was_replayed_is_settled_and_not_replayed_again(log: Log, dead: DeadLetters) -> None:
    await refuse(log, Place(1, 7), write_event(GRADIENT))
    await dead.replay([Place(1, 7)])
    assert await dead.letters() == []
    (letter,) = await dead.letters(settled=True)
    assert (letter.status, letter.replayed_at) == (Status.REPLAYED, At(1, 0))
    assert await dead.replay([Place(1, 7)]) == [Refused(Place(1, 7), "it has been replayed already, at 1:0")]
    assert len(await published(log, 1)) == 1


@pytest.mark.parametrize(
    ("value", "reason", "why"),
    [
        (b"junk", Reason.TRUNCATED, "does not decode: truncated"),
        (write_event(GRADIENT), Reason.FORGED, "is forged"),
        (
            write_event(Op("barrier", "t", 1, Origin(OPS_PRODUCER, 0, 1), {})),
            Reason.BAD_OP,
            r"is an op \(barrier\)",
        ),
        (write_event(Upsert("u", 1, ORIGIN, IDS, ROWS)), Reason.UNKNOWN_TABLE, "is for table 'u'"),
        (write_event(Upsert("t", 2, ORIGIN, IDS, ROWS)), Reason.WRONG_SHARD, "is for shard 2"),
        (bytes(MAX_FRAME), Reason.OVERSIZED, "only the first 4096 of its 8388608 bytes"),
    ],
)
async def test_what_cannot_be_replayed_is_refused_by_name_and_the_others_go_on(
    log: Log, dead: DeadLetters, value: bytes, reason: Reason, why: str
) -> None:
    await refuse(log, Place(1, 1), value, reason)
    await refuse(log, Place(1, 2), write_event(GRADIENT))
    first, second = await dead.replay([Place(1, 1), Place(1, 2)])
    assert isinstance(first, Refused)
    assert re.search(why, first.why)
    assert isinstance(second, Replayed)
    assert [letter.place for letter in await dead.letters()] == [Place(1, 1)], "it stays open"


@pytest.mark.parametrize("place", [Place(0, 1), Place(7, 0)])
async def test_a_place_without_a_letter_is_named_before_anything_is_done(
    log: Log, dead: DeadLetters, place: Place
) -> None:
    await refuse(log, Place(1, 2), write_event(GRADIENT))
    for act in (dead.replay, dead.drop):
        with pytest.raises(InputError, match=f"no dead letter {place}"):
            await act([Place(1, 2), place])
    with pytest.raises(InputError, match=f"no dead letter {place}"):
        await dead.find(place)
    assert len(await dead.letters()) == 1
    assert await published(log, 1) == []


async def test_a_dropped_letter_is_hidden_but_still_there(log: Log, dead: DeadLetters) -> None:
    await refuse(log, Place(1, 2), b"x")
    assert await dead.drop([Place(1, 2)]) == [Place(1, 2)]
    assert await dead.letters() == []
    letter, record = await dead.find(Place(1, 2))
    assert isinstance(letter, Letter)
    assert letter.status is Status.DROPPED
    assert record.value == b"x"
    assert await dead.drop([Place(1, 2)]) == [Refused(Place(1, 2), "it has been dropped already")]
