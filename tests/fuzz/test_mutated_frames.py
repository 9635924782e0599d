"""Damaged frames: none crashes, hangs or bloats anything; each is refused, or read as an oracle reads it.

20,000 frames by default, DRIFTLINE_TESTS_FRAMES=1000000 for the long form.
DRIFTLINE_TESTS_SEED picks others; both are printed with what came out.
"""

from __future__ import annotations

import contextlib
import os
import time
import tracemalloc
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from random import Random
from typing import TypeVar

import numpy as np
import pytest
from numpy.typing import NDArray

from driftline.errors import FrameError, StateError
from driftline.frames.events import (
    Delete,
    Event,
    Gradient,
    Op,
    Origin,
    Upsert,
    event_of,
    read_event,
    write_event,
)
from driftline.frames.headers import KEY_ID, MAC
from driftline.frames.reasons import Reason
from driftline.frames.states import read_update
from driftline.frames.tensors import Bfloat16, Frame, decode, encode
from driftline.log.base import Headers, Record
from driftline.shard.machine import Shard
from driftline.shard.screen import MAX_FRAME
from tests import oracle
from tests.fuzz import corpus
from tests.fuzz.mutations import mutate
from tests.oracle import Expected, differences, wire
from tests.simulation.random_log import KEYRING, KEYS, SHARD, TABLE, RandomLog

T = TypeVar("T")
FRAMES = int(os.environ.get("DRIFTLINE_TESTS_FRAMES", "20000"))
SEED = int(os.environ.get("DRIFTLINE_TESTS_SEED", "1"))
RECORDS = 60  # of a log
SLOWEST = 5.0  # seconds for one frame: far above any, far below a hang
OF_BYTES = {Reason.OVERSIZED, Reason.TRUNCATED, Reason.UNDECODABLE, Reason.SCHEMA, Reason.UNKNOWN_TYPE}
OF_RULES = {
    Reason.FORGED,
    Reason.UNKNOWN_TABLE,
    Reason.WRONG_SHARD,
    Reason.QUARANTINED,
    Reason.WRONG_DIM,
    Reason.UNSORTED_IDS,
    Reason.DUPLICATE_IDS,
    Reason.FOREIGN_IDS,
    Reason.NON_FINITE,
    Reason.BAD_OP,
    Reason.BAD_SPEC,
}
ORIGIN = Origin(bytes(16), 0, 1)
_TEXTS = (b"fp", b"prep", b"spec")  # the oracle leaves their text open

pytestmark = pytest.mark.timeout(180 + FRAMES // 100)


def damaged(originals: Sequence[bytes], count: int, name: str) -> Iterator[bytes]:
    rng = Random(f"{SEED}:{name}")
    for _ in range(count):
        yield mutate(rng.choice(originals), rng, originals)


def reason_of(error: FrameError) -> Reason:
    assert isinstance(error.reason, Reason), error
    assert error.reason in OF_BYTES, error
    return error.reason


def read_tensors(data: bytes) -> Frame | Reason:
    try:
        return decode(data, limit=MAX_FRAME)
    except FrameError as error:
        return reason_of(error)


def judged(read: Callable[[bytes], T], data: bytes) -> T | str:
    """Return what the independent decoder reads, or why it refuses."""
    try:
        return read(data)
    except wire.UndecodableError as error:
        return str(error)


def test_what_is_to_be_damaged_is_sound() -> None:
    for data in corpus.events():
        assert_same(read_event(data, limit=MAX_FRAME), wire.decode(data))
    for data in corpus.updates():
        read_update(data, limit=MAX_FRAME)


def test_a_damaged_event_is_refused_or_read_as_an_independent_decoder_reads_it() -> None:
    outcomes: Counter[str] = Counter()
    slowest = 0.0
    for number, data in enumerate(damaged(corpus.events(), FRAMES, "events")):
        begun = time.perf_counter()
        frame = read_tensors(data)
        event: Event | Reason
        try:
            event = event_of(frame) if isinstance(frame, Frame) else frame
        except FrameError as error:
            event = reason_of(error)
        slowest = max(slowest, time.perf_counter() - begun)
        expected = judged(wire.decode, data)
        if isinstance(event, Reason):
            assert isinstance(expected, str), f"frame {number} of seed {SEED} refused as {event}: {data!r}"
            outcomes[event] += 1
        else:
            assert not isinstance(expected, str), f"frame {number} of seed {SEED}: {expected}: {data!r}"
            assert_same(event, expected)
            outcomes["read"] += 1
    print(f"seed {SEED}, {FRAMES} frames, slowest {slowest * 1e3:.1f} ms: {dict(outcomes)}")
    assert slowest < SLOWEST
    assert outcomes["read"] > FRAMES // 20
    assert OF_BYTES - {Reason.OVERSIZED} <= outcomes.keys(), "each way to refuse is on this path"


def test_the_tensors_of_a_damaged_update_are_refused_or_read_as_an_independent_decoder_reads_them() -> None:
    for number, data in enumerate(damaged(corpus.updates(), FRAMES // 4, "updates")):
        frame = read_tensors(data)
        try:
            read_update(data, limit=MAX_FRAME)
        except FrameError as error:
            reason_of(error)
        expected = judged(wire.container, data)
        if isinstance(frame, Reason):
            assert isinstance(expected, str), f"frame {number} of seed {SEED} refused as {frame}: {data!r}"
            continue
        assert not isinstance(expected, str), f"frame {number} of seed {SEED}: {expected}: {data!r}"
        metadata, tensors = expected
        assert frame.metadata == metadata
        assert frame.kinds == {name: tensor.dtype for name, tensor in tensors.items()}
        for name, tensor in tensors.items():
            assert frame.tensors[name].shape == tensor.shape
            assert tensor.dtype == "BF16" or frame.tensors[name].tobytes() == tensor.data


def test_reading_a_frame_takes_less_memory_than_two_of_the_largest_frames() -> None:
    ids = np.arange(1 << 17, dtype=np.uint64)
    grads = np.ones((len(ids), 24), np.float32)
    largest = write_event(Gradient("t", 1, ORIGIN, ids, grads), as_dtype="BF16")
    odd = encode({"note": ""}, {"a": np.zeros(1, np.uint8), "b": Bfloat16.of(grads)})  # not aligned
    halves = write_event(Gradient("t", 1, ORIGIN, ids, grads), as_dtype="F16")
    sample = list(damaged(corpus.events(), FRAMES // 50, "memory"))
    cut = [largest[:-1], largest[: len(largest) // 2], largest + bytes(MAX_FRAME)]
    tracemalloc.start()
    try:
        for data in (largest, odd, halves, *cut, *sample):
            tracemalloc.reset_peak()
            before = tracemalloc.get_traced_memory()[0]
            with contextlib.suppress(FrameError):
                read_event(data, limit=MAX_FRAME)
            taken = tracemalloc.get_traced_memory()[1] - before
            assert taken < 2 * MAX_FRAME, f"{taken} bytes for a frame of {len(data)}"
    finally:
        tracemalloc.stop()


def test_a_shard_fed_damaged_frames_goes_on_and_equals_the_oracle() -> None:
    outcomes: Counter[str] = Counter()
    for seed in range(max(1, FRAMES // RECORDS)):
        rng = Random(f"{SEED}:log:{seed}")
        feed(f"log {seed} of seed {SEED}", damaged_log(seed, rng), rng, outcomes)
    print(f"seed {SEED}: {dict(outcomes)}")
    assert outcomes["applied"] > outcomes.total() // 20
    if FRAMES >= 20_000:
        assert set(map(str, OF_BYTES | OF_RULES)) <= outcomes.keys(), "each way to refuse is on this path"


def damaged_log(seed: int, rng: Random) -> list[Record]:
    """Return a random log in which every second record is damaged, or its headers are."""
    records = RandomLog(seed * 1000 + SEED).write(RECORDS)
    values = [record.value for record in records]
    damaged_records = records[:1]  # the spec: without it everything is refused
    for record in records[1:]:
        if rng.random() < 0.5:
            damaged_records.append(record)
            continue
        value = mutate(record.value, rng, values)
        damaged_records.append(
            Record(record.offset, record.timestamp, None, value, headers(record, value, rng))
        )
    return damaged_records


def headers(record: Record, value: bytes, rng: Random) -> Headers:
    draw = rng.random()
    if draw < 0.1:
        return ((KEY_ID, b"x"),)
    if draw < 0.15:
        return ((MAC, b"0"), *KEYRING.sign(value)[:1])
    if draw < 0.6 and record.headers and b'"spec"' not in record.value:
        return KEYRING.sign(value)  # as a router gone mad would
    return record.headers


def feed(log: str, records: Sequence[Record], rng: Random, outcomes: Counter[str]) -> None:
    """Apply `records` in random batches and compare with the oracle after each."""
    shard, judge = Shard(TABLE, SHARD, KEYRING), oracle.Shard(SHARD, keys=KEYS)
    rest: Sequence[Record] = records
    rows: dict[int, Expected] = {}
    while rest:
        try:
            plan = shard.screen(rest[: rng.randrange(1, 20)])
        except StateError:  # a signed op that this release cannot follow: the shard stops and says so
            assert rest[0].headers
            outcomes["stopped"] += 1
            return
        shard.apply(plan, None)
        if plan.op is not None:
            try:
                shard.apply_op(plan.op)
            except StateError:
                outcomes["stopped"] += 1
                return
        outcomes.update(str(item.reason) for item in plan.rejected)
        verdicts = [judge.apply(record) for record in rest[: plan.consumed]]
        refused = {item.record.offset for item in plan.rejected}
        expected = {
            record.offset
            for record, verdict in zip(rest, verdicts, strict=False)
            if verdict.verdict == "dead letter"
        }
        assert refused == expected, log
        outcomes["applied"] += sum(verdict.verdict == "applied" for verdict in verdicts)
        outcomes["duplicate"] += plan.counts["duplicate"]
        rest = rest[plan.consumed :]
        compare(log, shard, judge, rows)


def compare(log: str, shard: Shard, judge: oracle.Shard, rows: dict[int, Expected]) -> None:
    delta = shard.take_delta()
    shard.committed()
    for n, row_id in enumerate(delta.states.ids.tolist()):
        states = delta.states
        if states.flags[n] & 1:
            rows.pop(row_id, None)
        else:
            values = states.rows[n].tobytes(), states.state[n].tobytes()
            rows[row_id] = Expected(*values, int(states.lsn[n]), int(states.ordinals[n]))
    assert not differences(judge.table(), rows), log
    fields, expected = shard.position.fields(), judge.position().fields()
    assert {name: value for name, value in fields.items() if name not in _TEXTS} == expected, log


def assert_same(event: Event, expected: wire.Frame) -> None:
    """Compare an event with what the independent decoder makes of the same bytes."""
    kind = event.kind if isinstance(event, Op) else type(event).__name__.lower()
    assert (kind, event.table, event.shard) == (expected.kind, expected.table, expected.shard)
    origin = event.origin
    assert (origin.producer, origin.epoch, origin.seq) == (expected.producer, expected.epoch, expected.seq)
    match event:
        case Gradient(ids=ids, grads=grads):
            assert (event.read_pos, event.lr) == (expected.read_pos, expected.lr)
            assert_rows(ids, grads, expected)
        case Upsert(ids=ids, rows=rows, state=state):
            assert_rows(ids, rows, expected)
            assert_floats(state, expected.state, expected.state_width)
        case Delete(ids=ids):
            assert tuple(ids.tolist()) == expected.ids
        case Op():
            assert event.body == expected.body
            if event.rows is not None:
                assert_rows(event.ids, event.rows, expected)
                assert_floats(event.state, expected.state, expected.state_width)


def assert_rows(ids: NDArray[np.uint64], rows: NDArray[np.float32], expected: wire.Frame) -> None:
    assert tuple(ids.tolist()) == expected.ids
    assert_floats(rows, expected.values, expected.width)


def assert_floats(
    found: NDArray[np.float32] | None, expected: Sequence[Sequence[float]] | None, width: int
) -> None:
    """Compare bit for bit, but for what a NaN carries."""
    assert (found is None) == (expected is None)
    if found is None or expected is None:
        return
    wanted = np.array(expected, np.float32).reshape(len(expected), width)
    assert found.shape == wanted.shape
    assert found.dtype == np.float32
    number = ~np.isnan(wanted)
    assert np.array_equal(np.isnan(found), ~number)
    assert np.array_equal(found[number].view(np.uint32), wanted[number].view(np.uint32))
