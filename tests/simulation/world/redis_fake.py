"""A Redis server in memory, and connections to it that break.

Invariant: it takes the bytes Redis takes and gives the replies Redis gives;
between any two commands outside a transaction somebody else's may run. When an
exchange raises StoreUnavailableError its commands may have run not at all, up to
some point, all of them, or may run yet (`late`): exactly what a caller of a real
Redis has to reckon with.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import TypeAlias

from hiredis import Reader, ReplyError

from driftline.errors import StoreUnavailableError
from tests.simulation.world.keyspace import Reply
from tests.simulation.world.process import Process
from tests.simulation.world.session import Session, Sessions
from tests.simulation.world.world import World

__all__ = ["FakeConnection", "FakeRedis", "ReplyError", "pack"]

Command: TypeAlias = list[bytes]
Bytes: TypeAlias = bytes | memoryview

_INTERRUPTED = 0.2
"""Share of the exchanges in which the server attends to others between two of the commands."""


class FakeRedis:
    """One Redis server of the world."""

    def __init__(self, world: World, name: str = "redis") -> None:
        self.world = world
        self.name = name
        self.rng = world.random(f"redis:{name}")
        self._sessions = Sessions()
        self._up_from = 0.0

    def connect(self, process: Process) -> FakeConnection:
        """Return a connection for `process`; it connects when it is first used."""
        return FakeConnection(self, process)

    def connector(self, process: Process) -> Callable[[], Awaitable[FakeConnection]]:
        """Return what opens connections for `process`; raises StoreUnavailableError while down."""

        async def connect() -> FakeConnection:
            connection = self.connect(process)
            await connection.reconnect()
            return connection

        return connect

    def ask(self, *command: bytes) -> Reply:
        """Run one command at once and without faults: for the test itself, not for code under test."""
        session = self._sessions.connect()
        reply = session.execute(command)
        session.close()
        return reply

    def watch_changes(self, watcher: Callable[[set[bytes]], None]) -> None:
        """Have `watcher` told, after each transaction, which keys it has changed."""
        self._sessions.watcher = watcher

    def open_session(self) -> Session | None:
        """Return a new session, or None while the server is down."""
        return self._sessions.connect() if self.world.loop.time() >= self._up_from else None

    def restart(self, *, lose: int = 0, down: float = 0.0) -> None:
        """Cut all connections and come back after `down` seconds without the last `lose` transactions.

        A transaction is an EXEC or a single write: what an append-only file loses at its tail.
        """
        undone = self._sessions.keyspace.take_back(lose)
        self._interrupt(f"restarted without its last {undone} transactions, down for {down:.3f} s", down)

    def fail_over(self, *, lag: int) -> None:
        """Let a replica take over that had not seen the last `lag` transactions."""
        undone = self._sessions.keyspace.take_back(lag)
        self._interrupt(f"failed over to a replica {undone} transactions behind", 0.0)

    def restart_empty(self, *, down: float = 0.0) -> None:
        """Come back without any data."""
        self._sessions.keyspace.wipe()
        self._interrupt("restarted empty", down)

    def _interrupt(self, what: str, down: float) -> None:
        self._sessions.close_all()
        self._up_from = self.world.loop.time() + down
        self.world.trace(self.name, what)


class FakeConnection:
    """One process's connection; once it has raised it stays broken until `reconnect`."""

    def __init__(self, server: FakeRedis, process: Process) -> None:
        self._server = server
        self._process = process
        self._session: Session | None = None
        self._broken = False
        self._busy = False

    @property
    def broken(self) -> bool:
        return self._broken or (self._session is not None and self._session.closed)

    async def reconnect(self) -> None:
        """Connect anew; WATCHes and an open MULTI of the old connection are gone."""
        await self._process.pass_door()
        await asyncio.sleep(self._server.world.delay(self._server.rng))
        await self._process.pass_door()
        self._session = self._server.open_session()
        self._broken = self._session is None
        if self._broken:
            raise StoreUnavailableError(f"{self._server.name} refuses the connection")

    async def close(self) -> None:
        """Hang up; the server forgets the connection, unless something is still under way on it."""
        if self._session is not None and not self._busy:
            self._session.close()
        self._broken = True

    async def exchange(self, packed: bytes | Sequence[Bytes], replies: int) -> list[Reply]:
        """Send packed commands and return that many replies, in order.

        Raises StoreUnavailableError when the connection is or becomes broken.
        """
        await self._process.pass_door()
        assert not self._busy, f"{self._process.name}: two exchanges at once on one connection"
        if self._session is None and not self._broken:
            self._session = self._server.open_session()
        if self._session is None or self.broken:
            self._broken = True
            raise StoreUnavailableError(f"the connection to {self._server.name} is broken")
        commands = _parse(packed)
        assert len(commands) == replies, f"{len(commands)} commands give as many replies, not {replies}"
        flight = _Flight(self._server, self._process.name, self._session, commands)
        self._busy = True
        try:
            return await self._process.outcome(flight.answer, flight.abandon)
        except (StoreUnavailableError, asyncio.CancelledError):
            self._broken = True
            raise
        finally:
            self._busy = False


class _Flight:
    """Commands on their way to the server, and the replies on their way back."""

    def __init__(self, server: FakeRedis, who: str, session: Session, commands: list[Command]) -> None:
        self._server, self._who, self._session, self._commands = server, who, session, commands
        self._loop = server.world.loop
        self.answer: asyncio.Future[list[Reply]] = self._loop.create_future()
        self._replies: list[Reply] = []
        self._stop = len(commands)  # the connection is cut in front of this command
        self._hang_up = False  # the client is gone when the last command has run
        rates, rng = server.world.rates, server.rng
        wait = server.world.delay(rng)
        chance = rng.random()
        for rate, fault in (
            (rates.redis_cut_before, self._cut_before),
            (rates.redis_cut_midway, self._cut_midway),
            (rates.redis_reply_lost, self._lose_reply),
            (rates.redis_late, self._be_late),
        ):
            if chance < rate:
                wait += fault()
                break
            chance -= rate
        self._loop.call_later(wait, self._arrive, 0)

    def _cut_before(self) -> float:
        self._stop, self._hang_up = 0, True
        return self._note("cut before")

    def _cut_midway(self) -> float:
        self._stop, self._hang_up = self._server.rng.randrange(len(self._commands) + 1), True
        return self._note(f"cut after {self._stop} of {len(self._commands)} commands of")

    def _lose_reply(self) -> float:
        self._hang_up = True
        return self._note("reply lost of")

    def _be_late(self) -> float:
        """The client hears of a failure now; the commands arrive well after that."""
        world, rng = self._server.world, self._server.rng
        self._hang_up = True
        self._loop.call_later(world.delay(rng), self._fail)
        return self._note("late:") + rng.random() * 100.0 * world.rates.latency

    def _note(self, fault: str) -> float:
        names = b" ".join(command[0] for command in self._commands[:12]).decode("latin-1")
        self._server.world.trace(self._who, f"{self._server.name}: {fault} {names}")
        return 0.0

    def _arrive(self, first: int) -> None:
        """Run the commands from `first` on, perhaps with a pause for others on the way."""
        if self._session.closed:
            self._fail()
            return
        rng, stop = self._server.rng, self._stop
        pause = stop
        if stop - first > 1 and rng.random() < _INTERRUPTED:
            pause = rng.randrange(first + 1, stop)
        for command in self._commands[first:pause]:
            self._replies.append(self._session.execute(command))
        if pause < stop:
            self._loop.call_later(self._server.world.delay(rng), self._arrive, pause)
        elif self._hang_up:
            self._session.close()
            self._fail()
        else:
            self._loop.call_later(self._server.world.delay(rng), self._return)

    def _return(self) -> None:
        if self._hang_up:
            self._session.close()
        if self._session.closed:
            self._fail()
        elif not self.answer.done():
            self.answer.set_result(self._replies)

    def _fail(self) -> None:
        if not self.answer.done():
            error = StoreUnavailableError(f"the connection to {self._server.name} broke; outcome unknown")
            self.answer.set_exception(error)

    def abandon(self) -> None:
        """The client is gone: what has not arrived is lost or arrives yet, by the seed."""
        self._hang_up = True
        done = len(self._replies)
        lost = done < self._stop and self._server.rng.random() < 0.5
        if lost:
            self._stop = done
        self._server.world.trace(
            self._who,
            f"{self._server.name}: gone after {done} commands, the rest {'lost' if lost else 'runs'}",
        )


def pack(*command: bytes) -> bytes:
    """Write one command as RESP2: an array of bulk strings."""
    return b"*%d\r\n" % len(command) + b"".join(b"$%d\r\n%b\r\n" % (len(part), part) for part in command)


def _parse(packed: bytes | Sequence[Bytes]) -> list[Command]:
    """Split RESP2 requests, arrays of bulk strings, into commands."""
    reader = Reader()
    reader.feed(packed if isinstance(packed, bytes) else b"".join(packed))
    commands: list[Command] = []
    while (command := reader.gets()) is not False:
        assert isinstance(command, list), f"not an array: {command!r}"
        commands.append(command)
    assert not reader.has_data(), "the request ends in the middle of a command"
    assert commands, "an exchange without a command"
    return commands
