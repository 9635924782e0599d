"""Watches Redis and the log while a simulation runs, and holds both against the oracle.

Invariant: after EVERY transaction the shard in Redis is the oracle's at the prefix
that its position names, and every record on the updates topic is true the moment
it is there. Nothing is sampled: the fakes report each change.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence

from driftline import topics
from driftline.frames.markers import Markers
from driftline.frames.states import TOMBSTONE, Marker, States, read_update
from driftline.log.base import Record
from driftline.shard.position import SCALARS, fingerprint
from tests.oracle import Expected, differences, wire
from tests.simulation.timeline import Timeline
from tests.simulation.world import FakeLog, FakeRedis

TABLE, GROUP, SHARDS = "t", "g", 2
_OWN = (b"owner", b"published", b"fp", b"prep", b"spec", b"ready", b"staged", b"failed", b"version")
"""Fields of `w` that the oracle does not know."""
_OFFSET = (1 << 48) - 1


FORWARDED_KINDS = ("spec", "barrier", "quarantine", "restore-rows", "prepare", "restore")


class Violation(AssertionError):  # noqa: N818  # a verdict of the judge
    """The system did what it must never do; `check` is the short name of the rule."""

    def __init__(self, check: str, message: str) -> None:
        super().__init__(f"[{check}] {message}")
        self.check = check


class Published:
    """The updates topic of one shard, as a reader that keeps the newest sees it."""

    def __init__(self) -> None:
        self.newest: dict[int, int] = {}
        self.rows: dict[int, Expected] = {}
        self.seen: dict[tuple[int, int], Expected | None] = {}
        self.markers: dict[int, Marker] = {}  # op -> the first complete one
        self.parts = Markers()
        self.floor = 0  # what is not above it was before the last restore

    def take(self, row_id: int, at: int, row: Expected | None) -> None:
        """Note a state; None is a tombstone."""
        known = self.seen.setdefault((row_id, at), row)
        if known != row:
            raise Violation("updates-bits", f"id {row_id} at LSN {at:#x}: {known}, then {row}")
        if at > max(self.floor, self.newest.get(row_id, 0)):
            self.newest[row_id] = at
            if row is None:
                self.rows.pop(row_id, None)
            else:
                self.rows[row_id] = row

    def restore(self, floor: int, table: Mapping[int, Expected]) -> None:
        """Load a version anew, as whoever reads the topic does behind a restore's marker."""
        self.floor, self.rows = floor, dict(table)
        self.newest = {row_id: row.lsn for row_id, row in table.items()}


class Judge:
    """The checks that run at every change; the first violation is kept in `verdict`."""

    def __init__(self, redis: FakeRedis, log: FakeLog, keys: Mapping[str, bytes]) -> None:
        self._redis, self._log = redis, log
        for topic in (topics.gradients(TABLE), topics.updates(TABLE), topics.dead_letters(TABLE)):
            log.create(topic, SHARDS)
        logs = [log.partition(topics.gradients(TABLE), shard).records for shard in range(SHARDS)]
        self.timelines = [Timeline(shard, SHARDS, logs[shard], keys) for shard in range(SHARDS)]
        self.published = [Published() for _ in range(SHARDS)]
        self.dead_letters: list[set[bytes]] = [set() for _ in range(SHARDS)]
        self.ops: list[list[int]] = [[] for _ in range(SHARDS)]  # their numbers, as they came
        self.committed = [0] * SHARDS  # the highest `next` there ever was
        self.evicted: set[int] = set()  # shards whose rows somebody took away
        self.verdict: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._passed = [0] * SHARDS
        self._marked = [0] * SHARDS
        self._keys = keys
        self.trap: Callable[[bytes], None] | None = None  # called once, with the owner who commits next
        self._forwarded: set[int] = set()  # numbers of the ops that are to reach the table
        self._requests: set[str] = set()  # ids of those that were asked for
        self._repeated: set[int] = set()  # numbers of requests that had been in the log
        redis.watch_changes(self._guarded(self._on_transaction))
        log.watch_appends(self._guarded(self._on_append))

    def _guarded(self, check: Callable[..., None]) -> Callable[..., None]:
        def guarded(*args: object) -> None:
            try:
                check(*args)
            except Violation as violation:
                self.fail(violation)

        return guarded

    def fail(self, error: BaseException) -> None:
        if not self.verdict.done():
            self.verdict.set_exception(error)

    def fields(self, shard: int) -> dict[bytes, bytes]:
        """Return the hash `w` of a shard."""
        return self._hash(shard, b"w")

    def redis_went_back(self) -> None:
        """Redis has lost its tail: `published` may be lower, whole positions gone, evicted rows back."""
        for shard in range(SHARDS):
            fields = self.fields(shard)
            image = self.timelines[shard].at(int(fields.get(b"next", b"0"))).image
            if all(
                len(self._hash(shard, name)) == len(rows)
                for name, rows in zip((b"v", b"s"), image, strict=True)
            ):
                self.evicted.discard(shard)
            self._marked[shard] = int(fields.get(b"published", b"0"))
            if fields and shard not in self.evicted:
                self._check_image(shard, fields)

    def check_image(self, shard: int) -> None:
        """Check a shard as it stands in Redis now."""
        self._check_image(shard, self.fields(shard))

    def _hash(self, shard: int, name: bytes) -> dict[bytes, bytes]:
        flat = self._redis.ask(b"HGETALL", b"dl:{%s:%d}:%s" % (TABLE.encode(), shard, name))
        assert isinstance(flat, list)
        parts = [part for part in flat if isinstance(part, bytes)]
        return dict(zip(parts[::2], parts[1::2], strict=True))

    # Redis

    def _on_transaction(self, changed: set[bytes]) -> None:
        for shard in range(SHARDS):
            stem = b"dl:{%s:%d}:" % (TABLE.encode(), shard)
            if any(key.startswith(stem) for key in changed):
                self._on_commit(shard)

    def _on_commit(self, shard: int) -> None:
        fields = self.fields(shard)
        if not fields:  # wiped: to be built anew from the log
            self.evicted.discard(shard)
            self._marked[shard] = 0
            return
        reached, marked = int(fields[b"next"]), int(fields.get(b"published", b"0"))
        self.committed[shard] = max(self.committed[shard], reached)
        if shard in self.evicted:
            return
        self._check_image(shard, fields)
        if not self._marked[shard] <= marked <= reached:
            before = self._marked[shard]
            raise Violation("published", f"shard {shard}: published {before} -> {marked}, next {reached}")
        trap, self.trap = self.trap, None
        if trap is not None:
            trap(fields[b"owner"])
        self._check_published(shard, marked)
        self._marked[shard] = marked
        while self._passed[shard] < reached:
            self._check_passed(shard, self._passed[shard])
            self._passed[shard] += 1

    def _check_image(self, shard: int, fields: Mapping[bytes, bytes]) -> None:
        """Rows, optimizer state and position are the oracle's at `next`."""
        reached = int(fields[b"next"])
        moment = self.timelines[shard].at(reached)
        own = {name: value for name, value in fields.items() if name not in _OWN}
        if own != dict(moment.fields):
            wrong = {n: (moment.fields.get(n), own.get(n)) for n in {*own, *moment.fields}}
            wrong = {name: pair for name, pair in wrong.items() if pair[0] != pair[1]}
            raise Violation("position", f"shard {shard} at {reached}: (expected, stored) {wrong}")
        if reached:
            record = self._log.partition(topics.gradients(TABLE), shard).records[reached - 1]
            if fields[b"fp"] != fingerprint(record).encode():
                raise Violation(
                    "position", f"shard {shard} at {reached}: the fingerprint is another record's"
                )
        image = (self._hash(shard, b"v"), self._hash(shard, b"s"))
        if image != moment.image:
            wrong_ids = sorted(
                int.from_bytes(key, "little")
                for want, have in zip(moment.image, image, strict=True)
                for key in {*want, *have}
                if want.get(key) != have.get(key)
            )
            raise Violation("rows", f"shard {shard} at {reached}: ids {wrong_ids} are not the oracle's")

    def _check_published(self, shard: int, marked: int) -> None:
        """Below `published`, every row's newest state is on the updates topic."""
        if 1 << 48 | marked <= self.published[shard].floor:
            return  # Redis went back behind a restore, which whoever reads has passed
        have = self.published[shard].newest
        for row_id, at in self.timelines[shard].at(marked).newest.items():
            if have.get(row_id, 0) < at:
                message = f"shard {shard}: published {marked}, but id {row_id} of LSN {at:#x} is not there"
                raise Violation("published-early", message)

    def _check_passed(self, shard: int, offset: int) -> None:
        judged = self.timelines[shard].judged[offset]
        if (
            judged.outcome.verdict == "dead letter"
            and b"%d:%d" % (shard, offset) not in self.dead_letters[shard]
        ):
            raise Violation("dead-letter", f"shard {shard} passed {offset} without its dead letter")
        if judged.marker and judged.frame and judged.frame.seq not in self.published[shard].markers:
            raise Violation("barrier", f"shard {shard} passed op {judged.frame.seq} before its marker")

    # The log

    def _on_append(self, topic: str, shard: int, records: Sequence[Record]) -> None:
        if topic == topics.updates(TABLE):
            for record in records:
                update = read_update(record.value, limit=1 << 20)
                if isinstance(update, States):
                    self._on_states(shard, update)
                else:
                    self._on_marker(shard, update)
        elif topic == topics.dead_letters(TABLE):
            self.dead_letters[shard] |= {record.key or b"" for record in records}
        elif topic == topics.ops(GROUP):
            self._forwarded |= {record.offset + 1 for record in records if self._is_forwarded(record)}
        elif topic == topics.gradients(TABLE):
            for record in records:
                if record.headers and any(name == "dl-mac" for name, _ in record.headers):
                    self._on_op(shard, wire.decode(record.value).seq)

    def _on_states(self, shard: int, states: States) -> None:
        timeline = self.timelines[shard]
        for n, row_id in enumerate(states.ids.tolist()):
            at = int(states.lsn[n])
            where = f"shard {shard}: id {row_id} of LSN {at:#x}"
            if at & _OFFSET >= self.committed[shard]:
                raise Violation("published-uncommitted", f"{where}; committed is {self.committed[shard]}")
            if states.flags[n] & TOMBSTONE:
                if not timeline.absent(row_id, at):
                    raise Violation("tombstone", f"{where} is another shard's or is there")
                self.published[shard].take(row_id, at, None)
                continue
            row = Expected(states.rows[n].tobytes(), states.state[n].tobytes(), at, int(states.ordinals[n]))
            if timeline.version(row_id, at) != row:
                raise Violation("updates-rows", f"{where}: {row}, not {timeline.version(row_id, at)}")
            self.published[shard].take(row_id, at, row)

    def _on_marker(self, shard: int, marker: Marker) -> None:
        timeline, published = self.timelines[shard], self.published[shard]
        after = int(str(marker.position["next"]))
        where = f"shard {shard}: marker of op {marker.op}"
        moment = timeline.at(after)
        judged = timeline.judged[after - 1]
        if not judged.marker or judged.frame is None or judged.frame.seq != marker.op:
            raise Violation("marker", f"{where}: record {after - 1} is not that op")
        if self.committed[shard] < after - 1:
            raise Violation("marker-early", f"{where}: what precedes it is not committed")
        whole = published.parts.take(marker)
        if whole is None:
            return
        if _marked_fields(whole) != dict(moment.fields):
            raise Violation("marker", f"{where}: its position is {whole.position}, not {moment.fields}")
        published.markers[marker.op] = whole
        if wrong := differences(timeline.at(after - 1).table, published.rows):
            raise Violation("marker-early", f"{where}: the states before it do not make the cut: {wrong}")
        if whole.kind == "restore" and bool(whole.body["restored"]) != judged.restored:
            raise Violation("marker", f"{where}: it says restored={whole.body['restored']}")
        if judged.restored:
            published.restore(int(str(whole.position["floor"])), moment.table)

    def _on_op(self, shard: int, number: int) -> None:
        """Op n is everywhere before n+1 is anywhere; a request that was repeated is nowhere."""
        if number in self._repeated:
            raise Violation("replayed-op", f"op {number} at shard {shard} repeats an earlier request")
        self.ops[shard].append(number)
        missing = [n for n in range(1, number) for seen in self.ops if n in self._forwarded and n not in seen]
        if missing:
            raise Violation("router", f"op {number} at shard {shard} before op {missing[0]} is everywhere")

    def _is_forwarded(self, record: Record) -> bool:
        if not wire.signed(record.value, record.headers, self._keys):
            return False
        request = wire.container(record.value)[0]["request"]
        if request in self._requests:
            self._repeated.add(record.offset + 1)
            return False
        self._requests.add(request)
        frame = wire.decode(record.value)
        return frame.kind in FORWARDED_KINDS and (frame.kind != "restore" or "mode" in (frame.body or {}))


def _marked_fields(marker: Marker) -> dict[bytes, bytes]:
    """Return what a marker carries as the fields of `w` that the oracle knows."""
    found = {
        name.encode(): str(marker.position[name]).encode() for name in SCALARS if name.encode() not in _OWN
    }
    t = marker.tensors
    names = [bytes(row) for row in t["pname"]]
    for name, *sent in zip(names, *(t[k].tolist() for k in ("pepoch", "pseq", "ptime")), strict=True):
        found[b"p:" + name] = b"%d,%d,%d" % tuple(sent)
    for row_id, *named in zip(*(t[k].tolist() for k in ("rid", "rlsn", "rtime")), strict=True):
        found[b"r:%d" % row_id] = b"%d,%d" % tuple(named)
    shut_out = zip(map(bytes, t["qname"]), t["qop"].tolist(), strict=True)
    return found | {b"q:" + name: b"%d" % op for name, op in shut_out}
