"""What a stream service implements, and what it is given to steer its positions.

Invariant: the handler owns the positions. The chassis delivers, per partition
and in order, exactly what lies between the position it was told to start from
and the end of the log; offsets committed to the group are a hint for humans.
"""

from __future__ import annotations

from asyncio import Future
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from driftline.errors import PositionError
from driftline.log.base import Record


class TopicPartition(NamedTuple):
    """One partition. A named tuple, so that it equals Faust's and aiokafka's own."""

    topic: str
    partition: int


@dataclass(frozen=True, slots=True)
class Batch:
    """All records of one fetch of one partition.

    `start` and `next` are positions, not offsets seen: they also cover what the
    log has dropped or uses for itself (compaction, transaction markers), so that
    `start` equals the previous `next` on any topic. `behind`: at the fetch the log was known to
    hold more after these.
    """

    topic: str
    partition: int
    start: int
    next: int
    records: Sequence[Record]
    behind: bool = False

    @property
    def tp(self) -> TopicPartition:
        return TopicPartition(self.topic, self.partition)


class Flow(Protocol):
    """The handler's side of the chassis. Every call for a partition not owned is a no-op.

    `seek` and `hold` work at once: nothing queued is applied any more. The
    future they return is done when no apply for that partition is in hand
    either; inside `apply` of the same partition it must not be awaited.
    """

    def hint(self, tp: TopicPartition, position: int) -> None:
        """Tell the group, lazily, that everything below `position` is durable."""
        ...

    def seek(self, tp: TopicPartition, position: int) -> Future[None]:
        """Deliver again from `position`; whatever was queued is dropped. A held partition stays held."""
        ...

    def hold(self, tp: TopicPartition) -> Future[None]:
        """Deliver nothing of `tp` until `resume`; this member stays in the group."""
        ...

    def resume(self, tp: TopicPartition, position: int) -> Future[None]:
        """Deliver `tp` (again) from `position`."""
        ...

    def crash(self, error: BaseException) -> None:
        """Stop the worker with exit status 1; `release` is not called."""
        ...


class Handler(Protocol):
    """The logic of a stream service, free of Faust."""

    def bind(self, flow: Flow) -> None:
        """Receive the flow; called once, before anything else."""
        ...

    async def load(self, partitions: frozenset[TopicPartition]) -> Mapping[TopicPartition, int]:
        """Take ownership of `partitions`, and return the position each is to start from.

        A partition left out is held until `Flow.resume`. An exception stops the worker.
        """
        ...

    async def apply(self, batch: Batch) -> None:
        """Apply one batch: one at a time per partition, in order; partitions run concurrently.

        An exception is a bug or a lost cause: the worker stops and the batch counts as not applied.
        What may pass (a store that is away) is waited out inside.
        """
        ...

    async def lost(self, tp: TopicPartition, error: PositionError) -> None:
        """Learn that the log does not hold the position that `tp` is read from, while it is read.

        Comes after the apply of everything delivered before, and `tp` is held: nothing more is
        delivered until `Flow.resume`. The other partitions go on. Raising `error` stops the worker.
        """
        ...

    async def release(self, partitions: frozenset[TopicPartition]) -> None:
        """Make durable what was applied: no apply is in hand, and the group has not yet been told.

        Called once after every `load` that returned, except after a crash.
        """
        ...
