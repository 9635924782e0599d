"""A connection as the Redis server sees it: MULTI, EXEC and WATCH.

Invariant: EXEC runs its commands without anything in between, or, when anybody,
this session included, has modified a watched key since its WATCH, runs none of
them and answers nil. Watches end with EXEC, DISCARD, UNWATCH and the connection.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from hiredis import ReplyError

from tests.simulation.world.keyspace import COMMANDS, Keyspace, Reply

_CONTROL = {b"MULTI": 1, b"EXEC": 1, b"DISCARD": 1, b"WATCH": -2, b"UNWATCH": 1}


class Sessions:
    """The keyspace together with all who talk to it."""

    def __init__(self) -> None:
        self.keyspace = Keyspace(self._touch)
        self._watchers: dict[bytes, dict[Session, None]] = {}
        self._open: dict[Session, None] = {}
        self._changed: set[bytes] = set()
        self.watcher: Callable[[set[bytes]], None] | None = None

    def connect(self) -> Session:
        session = Session(self)
        self._open[session] = None
        return session

    def close_all(self) -> None:
        for session in list(self._open):
            session.close()

    def watch(self, key: bytes, session: Session) -> None:
        self._watchers.setdefault(key, {})[session] = None

    def unwatch(self, key: bytes, session: Session) -> None:
        del self._watchers[key][session]
        if not self._watchers[key]:
            del self._watchers[key]

    def forget(self, session: Session) -> None:
        self._open.pop(session, None)

    def end_batch(self) -> None:
        """Close the transaction at hand and tell the watcher which keys it has changed."""
        self.keyspace.end_batch()
        changed, self._changed = self._changed, set()
        if changed and self.watcher is not None:
            self.watcher(changed)

    def _touch(self, key: bytes) -> None:
        self._changed.add(key)
        for session in self._watchers.get(key, ()):
            session.dirty = True


class Session:
    """One connection's state on the server."""

    def __init__(self, sessions: Sessions) -> None:
        self._sessions = sessions
        self._queue: list[tuple[bytes, Sequence[bytes]]] | None = None
        self._aborted = False
        self._watched: dict[bytes, None] = {}
        self.dirty = False
        self.closed = False

    def close(self) -> None:
        """Forget the connection: what was queued is gone, what was watched no longer is."""
        self.closed = True
        self._queue = None
        self._unwatch()
        self._sessions.forget(self)

    def execute(self, command: Sequence[bytes]) -> Reply:
        """Run or queue one command and return its reply."""
        name, args = command[0].upper(), command[1:]
        arity = _CONTROL.get(name) or (COMMANDS[name][0] if name in COMMANDS else None)
        if arity is None:
            return self._refused(f"ERR unknown command `{command[0].decode('latin-1')}`")
        if len(command) != arity if arity > 0 else len(command) < -arity:
            return self._refused(f"ERR wrong number of arguments for '{name.decode().lower()}' command")
        if self._queue is not None and (name in COMMANDS or name == b"UNWATCH"):
            self._queue.append((name, args))
            return b"QUEUED"
        if name == b"EXEC":
            return self._exec()
        reply = self._run(name, args)
        self._sessions.end_batch()
        return reply

    def _refused(self, message: str) -> Reply:
        self._aborted = self._queue is not None
        return ReplyError(message)

    def _run(self, name: bytes, args: Sequence[bytes]) -> Reply:
        if name in COMMANDS:
            return self._sessions.keyspace.call(name, args)
        if name == b"UNWATCH":
            self._unwatch()
        elif name == b"DISCARD":
            if self._queue is None:
                return ReplyError("ERR DISCARD without MULTI")
            self._end_transaction()
        elif self._queue is not None:
            nested = name == b"MULTI"
            return ReplyError(
                "ERR MULTI calls can not be nested" if nested else "ERR WATCH inside MULTI is not allowed"
            )
        elif name == b"MULTI":
            self._queue = []
        else:
            for key in args:
                self._watched[key] = None
                self._sessions.watch(key, self)
        return b"OK"

    def _exec(self) -> Reply:
        if self._queue is None:
            return ReplyError("ERR EXEC without MULTI")
        queue, aborted, dirty = self._queue, self._aborted, self.dirty
        self._end_transaction()
        if aborted:
            return ReplyError("EXECABORT Transaction discarded because of previous errors.")
        if dirty:
            return None
        replies = [self._run(name, args) for name, args in queue]
        self._sessions.end_batch()
        return replies

    def _end_transaction(self) -> None:
        self._queue = None
        self._aborted = False
        self._unwatch()

    def _unwatch(self) -> None:
        for key in self._watched:
            self._sessions.unwatch(key, self)
        self._watched.clear()
        self.dirty = False
