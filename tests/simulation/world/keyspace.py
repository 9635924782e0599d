"""Redis's keys and hashes in memory, and the commands on them.

Invariant: each command gives the reply Redis 6.2 gives (tests/unit/test_world_redis.py
runs both side by side), and every write can be taken back, transaction by
transaction, newest first.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Callable, Sequence
from typing import TypeAlias
from zlib import crc32

from hiredis import ReplyError

Hash = dict[bytes, bytes]
Value = bytes | Hash
Reply: TypeAlias = "bytes | int | list[Reply] | Exception | None"
"""A reply as it is after parsing: bytes for a bulk or a status, an instance for an error."""

_KEPT = 512
"""How many transactions back a keyspace can go."""
_WRONG_TYPE = "WRONGTYPE Operation against a key holding the wrong kind of value"


class Keyspace:
    """Keys and what they hold; `touched` hears of every key a command has changed."""

    def __init__(self, touched: Callable[[bytes], None]) -> None:
        self._data: dict[bytes, Value] = {}
        self._touched = touched
        # What each transaction overwrote, oldest first: (key, field or None, value before or None).
        self._batch: list[tuple[bytes, bytes | None, Value | None]] = []
        self._history: deque[list[tuple[bytes, bytes | None, Value | None]]] = deque(maxlen=_KEPT)

    def end_batch(self) -> None:
        """Close the transaction at hand: what is written from here on is another one."""
        if self._batch:
            self._history.append(self._batch)
            self._batch = []

    def take_back(self, batches: int) -> int:
        """Undo the last `batches` transactions, as far as they are remembered; return how many."""
        self.end_batch()
        undone = min(batches, len(self._history))
        for _ in range(undone):
            for key, field, before in reversed(self._history.pop()):
                if field is not None:
                    fields = self._data[key]
                    assert isinstance(fields, dict)
                    _put_back(fields, field, before)
                else:
                    _put_back(self._data, key, before)
        return undone

    def wipe(self) -> None:
        """Lose everything, and the way back."""
        self._data.clear()
        self._batch.clear()
        self._history.clear()

    def call(self, name: bytes, args: Sequence[bytes]) -> Reply:
        """Run one command of `COMMANDS`; errors of Redis come back as replies."""
        try:
            return COMMANDS[name][1](self, args)
        except ReplyError as error:
            return error

    def _write(self, key: bytes, value: Value | None) -> None:
        """Set or remove a key as a whole."""
        self._batch.append((key, None, self._data.get(key)))
        _put_back(self._data, key, value)
        self._touched(key)

    def _hash(self, key: bytes) -> Hash:
        found = self._data.get(key)
        if isinstance(found, bytes):
            raise ReplyError(_WRONG_TYPE)
        return {} if found is None else found

    def flush(self, args: Sequence[bytes]) -> Reply:
        for key in list(self._data):
            self._write(key, None)
        return b"OK"

    def get(self, args: Sequence[bytes]) -> Reply:
        found = self._data.get(args[0])
        if isinstance(found, dict):
            raise ReplyError(_WRONG_TYPE)
        return found

    def set(self, args: Sequence[bytes]) -> Reply:
        if len(args) != 2:
            raise NotImplementedError(f"SET with options {args[2:]!r}")
        self._write(args[0], args[1])
        return b"OK"

    def type(self, args: Sequence[bytes]) -> Reply:
        found = self._data.get(args[0])
        return b"none" if found is None else b"string" if isinstance(found, bytes) else b"hash"

    def exists(self, args: Sequence[bytes]) -> Reply:
        return sum(key in self._data for key in args)

    def delete(self, args: Sequence[bytes]) -> Reply:
        gone = 0
        for key in args:
            if key in self._data:
                self._write(key, None)
                gone += 1
        return gone

    def rename(self, args: Sequence[bytes]) -> Reply:
        source, target = args
        found = self._data.get(source)
        if found is None:
            raise ReplyError("ERR no such key")
        if source != target:
            self._write(source, None)
            self._write(target, found)
        return b"OK"

    def keys(self, args: Sequence[bytes]) -> Reply:
        matches = _glob(args[0])
        return [key for key in self._data if matches(key)]

    def scan(self, args: Sequence[bytes]) -> Reply:
        cursor, page = _page(self._data, args[0], args[1:])
        return [cursor, list(page)]

    def hset(self, args: Sequence[bytes]) -> Reply:
        key = args[0]
        if len(args) % 2 == 0:
            raise ReplyError("ERR wrong number of arguments for 'hset' command")
        fields = self._hash(key)
        if key not in self._data:
            self._batch.append((key, None, None))
            self._data[key] = fields
        before = len(fields)
        batch = self._batch
        for n in range(1, len(args), 2):
            field = args[n]
            batch.append((key, field, fields.get(field)))
            fields[field] = args[n + 1]
        self._touched(key)
        return len(fields) - before

    def hdel(self, args: Sequence[bytes]) -> Reply:
        key = args[0]
        fields = self._hash(key)
        gone = 0
        for field in args[1:]:
            before = fields.pop(field, None)
            if before is not None:
                self._batch.append((key, field, before))
                gone += 1
        if gone:
            self._touched(key)
            if not fields:
                self._batch.append((key, None, self._data.pop(key)))
        return gone

    def hget(self, args: Sequence[bytes]) -> Reply:
        return self._hash(args[0]).get(args[1])

    def hmget(self, args: Sequence[bytes]) -> Reply:
        fields = self._hash(args[0])
        return [fields.get(field) for field in args[1:]]

    def hgetall(self, args: Sequence[bytes]) -> Reply:
        return [part for pair in self._hash(args[0]).items() for part in pair]

    def hlen(self, args: Sequence[bytes]) -> Reply:
        return len(self._hash(args[0]))

    def hexists(self, args: Sequence[bytes]) -> Reply:
        return int(args[1] in self._hash(args[0]))

    def hscan(self, args: Sequence[bytes]) -> Reply:
        fields = self._hash(args[0])
        cursor, page = _page(fields, args[1], args[2:])
        return [cursor, [part for field in page for part in (field, fields[field])]]


def _put_back(data: dict[bytes, Value] | Hash, name: bytes, value: Value | None) -> None:
    if value is None:
        data.pop(name, None)
    else:
        data[name] = value  # type: ignore[assignment]  # a hash's fields were bytes before, too


def _page(
    names: dict[bytes, Value] | Hash, cursor: bytes, options: Sequence[bytes]
) -> tuple[bytes, list[bytes]]:
    """Return the next cursor and page, in order of a hash of the names.

    That order gives Redis's guarantee: what is there from beginning to end of a scan is returned.
    """
    count, matches = 10, _glob(b"*")
    if not cursor.isdigit():
        raise ReplyError("ERR invalid cursor")
    if len(options) % 2:
        raise ReplyError("ERR syntax error")
    for option, value in zip(options[::2], options[1::2], strict=True):
        if option.upper() == b"COUNT":
            if not value.isdigit():
                raise ReplyError("ERR value is not an integer or out of range")
            count = int(value)
            if count < 1:
                raise ReplyError("ERR syntax error")
        elif option.upper() == b"MATCH":
            matches = _glob(value)
        else:
            raise ReplyError("ERR syntax error")
    start = int(cursor)
    left = sorted((place, name) for name in names if (place := crc32(name) + 1) > start)
    cut = min(count, len(left))
    while 0 < cut < len(left) and left[cut][0] == left[cut - 1][0]:
        cut += 1
    after = b"%d" % left[cut - 1][0] if cut < len(left) else b"0"
    return after, [name for _, name in left[:cut] if matches(name)]


def _glob(pattern: bytes) -> Callable[[bytes], object]:
    """Return a matcher for the part of Redis's patterns that is used here: `*`, `?` and backslash."""
    parts = re.findall(rb"\\.|.", pattern, re.DOTALL)
    if any(part in (b"[", b"]") for part in parts):
        raise NotImplementedError(f"character classes in {pattern!r}")
    wild = {b"*": b".*", b"?": b"."}
    regex = b"".join(wild.get(p) or re.escape(p[-1:]) for p in parts)
    return re.compile(regex, re.DOTALL).fullmatch


COMMANDS: dict[bytes, tuple[int, Callable[[Keyspace, Sequence[bytes]], Reply]]] = {
    # Arity as Redis counts it: the name included, negative for "at least".
    b"PING": (-1, lambda _, args: args[0] if args else b"PONG"),
    b"SELECT": (2, lambda _, args: b"OK"),
    b"CLIENT": (-2, lambda _, args: b"OK"),
    b"FLUSHALL": (-1, Keyspace.flush),
    b"FLUSHDB": (-1, Keyspace.flush),
    b"GET": (2, Keyspace.get),
    b"SET": (-3, Keyspace.set),
    b"TYPE": (2, Keyspace.type),
    b"EXISTS": (-2, Keyspace.exists),
    b"DEL": (-2, Keyspace.delete),
    b"UNLINK": (-2, Keyspace.delete),
    b"RENAME": (3, Keyspace.rename),
    b"EXPIRE": (3, lambda space, args: space.exists(args[:1])),  # no run lasts as long as that
    b"PERSIST": (2, lambda space, args: 0),
    b"KEYS": (2, Keyspace.keys),
    b"SCAN": (-2, Keyspace.scan),
    b"HSET": (-4, Keyspace.hset),
    b"HDEL": (-3, Keyspace.hdel),
    b"HGET": (3, Keyspace.hget),
    b"HMGET": (-3, Keyspace.hmget),
    b"HGETALL": (2, Keyspace.hgetall),
    b"HLEN": (2, Keyspace.hlen),
    b"HEXISTS": (3, Keyspace.hexists),
    b"HSCAN": (-3, Keyspace.hscan),
}
