"""The dead letters of one table, or of an ops or ingest topic: read, replayed, dropped.

Invariant: nothing is ever removed. A letter is settled by a mark behind it, which is
written only once what it says is durable: a replay that dies in between is done again,
and the shard knows it by its producer.
"""

from __future__ import annotations

import difflib
from collections.abc import AsyncIterator, Iterable, Sequence
from dataclasses import dataclass

from driftline import topics
from driftline.dlq import letters as form
from driftline.dlq.letters import At, Letter, Place, Status
from driftline.dlq.replaying import Refused, never, prepare
from driftline.errors import InputError, LogUnavailableError, UnknownTableError
from driftline.log import Log, Outgoing, Record

_WAIT = 10.0
_SUFFIX = topics.dead_letters("")


@dataclass(frozen=True, slots=True)
class Replayed:
    """A letter whose frame was published again, at `again` of the gradients log."""

    place: Place
    again: At
    letters_end: int  # of the dead-letter partition before: a new refusal comes at or behind it


class DeadLetters:
    """The dead letters of one table, or of a topic that is no table's, on an open log."""

    def __init__(self, log: Log, source: str, partitions: int) -> None:
        self._log, self._source, self._partitions = log, source, partitions
        self._topic = topics.dead_letters(source)
        self._never = never(source)  # why nothing of it is ever replayed; None for a table
        self._name = f"table {source}" if self._never is None else f"topic {source}"

    @classmethod
    async def of(cls, log: Log, source: str) -> DeadLetters:
        """Return the dead letters of a table, or of a topic `GROUP.ops` or `GROUP.ingest`.

        Raises UnknownTableError, LogUnavailableError.
        """
        known = {
            name.removesuffix(_SUFFIX): count
            for name, count in (await log.topics()).items()
            if name.endswith(_SUFFIX)
        }
        if source not in known:
            near = difflib.get_close_matches(source, known, n=3, cutoff=0.5)
            there = f"did you mean {' or '.join(near)}?" if near else "`driftline table ls` lists them"
            raise UnknownTableError(f"no table, and no topic with dead letters, is named {source!r}: {there}")
        return cls(log, source, known[source])

    async def letters(
        self, *, reason: str | None = None, since: int = 0, settled: bool = False
    ) -> Sequence[Letter]:
        """Return the letters by place, each once: the open ones, with `settled` all of them.

        `since` is a log time in milliseconds: letters refused at or after it. Reads the whole
        topic, and holds of a letter all but its bytes.
        """
        found: list[Letter] = []
        for partition in range(self._partitions):
            found += form.fold([each async for each in self._read(partition, 0)]).values()
        return sorted(
            (
                letter
                for letter in found
                if (settled or letter.status is Status.OPEN)
                and reason in (None, letter.reason)
                and letter.refused >= since
            ),
            key=lambda letter: (letter.place.generation, letter.place),
        )

    async def find(self, place: Place) -> tuple[Letter, Record]:
        """Return the letter at `place` and the record that holds its bytes. Raises InputError."""
        found: dict[Place, Letter] = {}
        lane = self._lane(place)
        if lane < self._partitions:
            found = form.fold([each async for each in self._read(lane, 0) if each.place == place])
        if place not in found:
            raise InputError(f"{self._name} has no dead letter {place}")
        return found[place], await self._record(found[place])

    async def replay(self, places: Iterable[Place]) -> Sequence[Replayed | Refused]:
        """Publish the frames of these letters again, in the order given, and mark them as replayed.

        A letter that cannot be replayed is refused by name, and the others go on. Raises InputError
        for a place without a letter, before anything is published.
        """
        known = await self._known(places)
        done: list[Replayed | Refused] = []
        for letter in known:
            if self._never is not None:
                done.append(Refused(letter.place, self._never))
                continue
            each = prepare(letter, await self._record(letter), self._source, self._partitions)
            if isinstance(each, Refused):
                done.append(each)
                continue
            end = (await self._log.bounds(self._topic, each.partition)).end
            offset = await self._log.append(topics.gradients(self._source), each.partition, [each.record])
            again = At(each.partition, offset)
            await self._mark(form.replayed(letter.place, again), self._lane(letter.place))
            done.append(Replayed(letter.place, again, end))
        return done

    async def drop(self, places: Iterable[Place]) -> Sequence[Place | Refused]:
        """Mark these letters as dealt with. Raises InputError for a place without a letter."""
        done: list[Place | Refused] = []
        for letter in await self._known(places):
            if letter.status is not Status.OPEN:
                done.append(Refused(letter.place, f"it has been {letter.status} already"))
                continue
            await self._mark(form.dropped(letter.place), self._lane(letter.place))
            done.append(letter.place)
        return done

    async def since(self, partition: int, offset: int) -> Sequence[Letter]:
        """Return the letters that were written to `partition` at or behind `offset` of the topic."""
        return list(form.fold([each async for each in self._read(partition, offset)]).values())

    async def _known(self, places: Iterable[Place]) -> Sequence[Letter]:
        wanted = list(dict.fromkeys(places))
        found = {letter.place: letter for letter in await self.letters(settled=True)} if wanted else {}
        for place in wanted:
            if place not in found:
                raise InputError(f"{self._name} has no dead letter {place}")
        return [found[place] for place in wanted]

    def _lane(self, place: Place) -> int:
        """Return the partition of the dead-letter topic that holds the letter."""
        return place.partition if self._never is None else 0

    async def _mark(self, mark: Outgoing, partition: int) -> None:
        await self._log.append(self._topic, partition, [mark])

    async def _record(self, letter: Letter) -> Record:
        async for record in self._records(self._lane(letter.place), letter.at, letter.at + 1):
            return record
        raise AssertionError("unreachable: a stretch of log is read to its end, or an error raised")

    async def _read(self, partition: int, offset: int) -> AsyncIterator[Letter | form.Mark]:
        bounds = await self._log.bounds(self._topic, partition)
        comes_from = partition if self._never is None else None
        async for record in self._records(partition, max(offset, bounds.begin), bounds.end):
            each = form.read_record(record, comes_from)
            if each is not None:
                yield each

    async def _records(self, partition: int, begin: int, end: int) -> AsyncIterator[Record]:
        reader = self._log.reader(self._topic, partition, begin)
        try:
            while reader.position < end:
                records = await reader.read(wait=_WAIT)
                if not records:
                    raise LogUnavailableError(
                        f"{self._topic}/{partition}: offset {reader.position} of {end} did not come"
                    )
                for record in records:
                    if record.offset < end:
                        yield record
        finally:
            await reader.close()
