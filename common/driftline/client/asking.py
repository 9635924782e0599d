"""What a client asks of shards, and which answers mean that a shard is elsewhere.

Invariant: every request begins with an HMGET of the shard's position whose last field
is `moved_to`, so that nobody reads rows that stay behind on a server the shard has left.
Pure: what is asked of one server is one pipeline.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

from redis.exceptions import AskError, ClusterDownError, MovedError, ReadOnlyError, TryAgainError

from driftline.client.landing import Values
from driftline.rows import resp
from driftline.rows.connection import Reply
from driftline.rows.layout import ShardKeys
from driftline.rows.resp import Bytes

Answer = Reply | Values
"""A reply, or where in a buffer its values lie."""

_Answer = TypeVar("_Answer", Reply, Answer)
_ELSEWHERE = (MovedError, AskError, ClusterDownError, TryAgainError, ReadOnlyError)


@functools.lru_cache(1 << 14)
def position_command(table: str, shard: int, fields: tuple[bytes, ...]) -> bytes:
    """Return the command that reads fields of a shard's position, and where it has moved to."""
    return resp.command(b"HMGET", ShardKeys.of(table, shard).position, *fields, b"moved_to")


@dataclass(frozen=True, slots=True)
class Request:
    """Commands about one shard; the first asks for fields of its position, `moved_to` last."""

    shard: int
    packed: tuple[Bytes, ...]
    replies: int
    rows: int = 0  # values in the reply that they come in
    ahead: int = 1  # replies before that one

    @classmethod
    def of(
        cls,
        table: str,
        shard: int,
        fields: Sequence[bytes],
        *more: Bytes,
        replies: int = 1,
        rows: int = 0,
        ahead: int = 1,
    ) -> Request:
        """Ask for `fields` of the position, then what `more` holds.

        `replies` in all; `ahead` of them come before the one with the values of `rows` rows.
        """
        return cls(shard, (position_command(table, shard, tuple(fields)), *more), replies, rows, ahead)


@dataclass(frozen=True, slots=True)
class Pipeline:
    """The requests that go to one server."""

    requests: tuple[Request, ...]

    @property
    def packed(self) -> list[Bytes]:
        """The commands."""
        return [part for request in self.requests for part in request.packed]

    @property
    def replies(self) -> int:
        """How many replies they give."""
        return sum(request.replies for request in self.requests)

    def answers(self, replies: Sequence[Reply]) -> dict[int, list[Reply]]:
        """Return the replies by shard."""
        found: dict[int, list[Reply]] = {}
        at = 0
        for request in self.requests:
            found[request.shard] = list(replies[at : at + request.replies])
            at += request.replies
        return found


def pipelines(requests: Sequence[Request], homes: Mapping[int, str]) -> dict[str, Pipeline]:
    """Return one pipeline per endpoint."""
    grouped: dict[str, list[Request]] = {}
    for request in requests:
        grouped.setdefault(homes[request.shard], []).append(request)
    return {endpoint: Pipeline(tuple(part)) for endpoint, part in grouped.items()}


def is_elsewhere(replies: Sequence[Answer]) -> bool:
    """Tell whether an answer says that its shard is not where it was asked for."""
    head = replies[0]
    if isinstance(head, list):
        return head[-1] is not None or any(isinstance(reply, _ELSEWHERE) for reply in replies)
    return isinstance(head, _ELSEWHERE)


def elsewhere(answers: Mapping[int, Sequence[Answer]]) -> list[int]:
    """Return the shards whose answers say that they are not where they were asked for."""
    return [shard for shard, replies in answers.items() if is_elsewhere(replies)]


def in_order(requests: Sequence[Request], answers: Mapping[int, Sequence[_Answer]]) -> list[_Answer]:
    """Return all replies in the order of the requests."""
    return [reply for request in requests for reply in answers[request.shard]]
