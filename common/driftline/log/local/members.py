"""Who reads which partition of an embedded log: membership without a coordinator.

    DIR/members/<consumer group>/<uuid>           locked while its member lives
    DIR/own/<consumer group>/<topic>.<partition>  locked by whoever reads it

Invariant: a partition is held by at most one member at a time, and a member that was
killed holds nothing: the kernel frees its locks. No heartbeat, no clock. Ownership
only saves work; that two writers do no harm is the fence's business.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import uuid
import weakref
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from driftline.errors import ConfigError, StateError
from driftline.log.limits import check_name

POLL_S = 0.2
"""How often a member should call `Membership.poll`."""

JOINING = "+"  # not part of a uuid: a member that does not hold its lock yet


class TopicPartition(NamedTuple):
    """One partition of one topic."""

    topic: str
    partition: int


@dataclass(frozen=True, slots=True)
class Changes:
    """What a member has to do to get from its partitions to those the plan gives it."""

    give_up: frozenset[TopicPartition]  # finish with these, then `release` each
    take: frozenset[TopicPartition]  # these are locked now: start reading

    def __bool__(self) -> bool:
        return bool(self.give_up or self.take)


def plan(members: Iterable[str], me: str, topics: Mapping[str, int]) -> frozenset[TopicPartition]:
    """Return the partitions that fall to `me`: rank r of n members takes p with p mod n = r.

    `topics`: name -> partition count. Ranks follow the sorted names, so that all members
    who see the same others plan alike; nothing falls to one who is not a member.
    """
    ranks = sorted(set(members))
    if me not in ranks:
        return frozenset()
    rank, count = ranks.index(me), len(ranks)
    return frozenset(TopicPartition(topic, p) for topic, n in topics.items() for p in range(rank, n, count))


class Membership:
    """One member of a consumer group; not for use by several threads at once.

    A child made by fork is not a member: it closes its copies of the locks, so that they
    end with the parent.
    """

    def __init__(self, root: Path, group: str, topics: Mapping[str, int]) -> None:
        check_name("consumer group", group)
        for topic in topics:
            check_name("topic", topic)
        self._members = root / "members" / group
        self._own = root / "own" / group
        self._topics = dict(topics)
        self._name = uuid.uuid4().hex
        self._lock: int | None = None  # descriptor that holds the lock on our member file
        self._held: dict[TopicPartition, int] = {}
        _live.add(self)

    @property
    def name(self) -> str:
        """Name of this member, unique for ever."""
        return self._name

    @property
    def held(self) -> frozenset[TopicPartition]:
        """Partitions locked by this member, those to be given up included."""
        return frozenset(self._held)

    def join(self) -> None:
        """Become a member; the first `poll` says what to read.

        Raises ConfigError when the lock files cannot be made.
        """
        if self._lock is not None:
            return
        with _translated(self._members):
            self._members.mkdir(parents=True, exist_ok=True)
            self._own.mkdir(parents=True, exist_ok=True)
            # Locked before it gets its name: others unlink member files that are not locked.
            joining = self._members / f"{JOINING}{self._name}"
            lock = _open(joining)
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            os.rename(joining, self._members / self._name)
        self._lock = lock

    def members(self) -> Sequence[str]:
        """Return the names of the live members, sorted; clears away what dead ones left."""
        with _translated(self._members):
            found = (name for name in os.listdir(self._members) if not name.startswith(JOINING))
            return sorted(name for name in found if name == self._name or _is_live(self._members / name))

    def poll(self) -> Changes:
        """Compare plan and possession, and lock what can be locked.

        `give_up` is repeated until released; `take` names a partition once. A partition that
        its former owner has not released yet is tried again by the next call. Raises
        StateError before `join`.
        """
        if self._lock is None:
            raise StateError(f"not a member of the consumer group in {self._members}: join first")
        planned = plan(self.members(), self._name, self._topics)
        taken: set[TopicPartition] = set()
        for wanted in sorted(planned - self._held.keys()):
            with _translated(self._own):
                lock = _try_lock(self._own / f"{wanted.topic}.{wanted.partition}")
            if lock is not None:
                self._held[wanted] = lock
                taken.add(wanted)
        return Changes(give_up=frozenset(self._held.keys() - planned), take=frozenset(taken))

    def release(self, partition: TopicPartition) -> None:
        """Let others have `partition`; call it once nothing more will be written for it."""
        lock = self._held.pop(partition, None)
        if lock is not None:
            os.close(lock)

    def leave(self) -> None:
        """Release everything and be a member no more; a second call does nothing."""
        for partition in self.held:
            self.release(partition)
        lock, self._lock = self._lock, None
        if lock is not None:
            with contextlib.suppress(FileNotFoundError):  # another may have cleared the directory away
                os.unlink(self._members / self._name)
            os.close(lock)

    def forget(self) -> None:
        """Close this process's copies of the locks without giving them up; for a forked child."""
        for lock in (*self._held.values(), *(() if self._lock is None else (self._lock,))):
            os.close(lock)
        self._held.clear()
        self._lock = None


_live: weakref.WeakSet[Membership] = weakref.WeakSet()


def _forget_all() -> None:
    for membership in list(_live):
        membership.forget()


# A lock of flock lasts until every copy of its descriptor is closed, the children's too.
os.register_at_fork(after_in_child=_forget_all)


@contextlib.contextmanager
def _translated(directory: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise ConfigError(
            f"membership locks in {directory}: {error}; check the directory, its permissions, and `ulimit -n`"
        ) from error


def _open(path: Path) -> int:
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)


def _try_lock(path: Path) -> int | None:
    lock = _open(path)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(lock)
        return None
    return lock


def _is_live(path: Path) -> bool:
    try:
        probe = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    try:
        # Shared, so that two who probe at the same time do not take each other for the owner.
        fcntl.flock(probe, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    else:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path)
        return False
    finally:
        os.close(probe)
