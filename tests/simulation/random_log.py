"""Random logs of one shard, with everything a log may hold: for core against oracle.

Invariant: a log is a function of its seed. About a tenth of the frames are wrong
in one of the ways the rules name; forged, torn and repeated frames are among them,
and log time runs ahead far enough that producers and restores are forgotten.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from random import Random

from driftline.frames.headers import KEY_ID, Keyring
from driftline.log.base import Headers, Record
from tests.oracle import writing
from tests.oracle.hashing import shard_of
from tests.oracle.wire import OPS_PRODUCER

KEYRING = Keyring(b"k" * 32, (b"o" * 32,))
TABLE, SHARD, DIM, SHARDS = "t", 1, 3, 2
STATE_SIZE = {"sgd": 0, "rowwise_adagrad": 1, "adagrad": DIM, "adam": 2 * DIM + 2, "ftrl": 2 * DIM}
IDS = [i for i in range(60) if shard_of(i, SHARDS) == SHARD][:20]
FOREIGN = next(i for i in range(60) if shard_of(i, SHARDS) != SHARD)
_OPS = ("barrier", "restore-rows", "restore-rows", "spec", "quarantine", "restore", "prepare")
_GARBAGE = (b"", b"xx", b"\x08" + bytes(7) + b"{}      ")
_UNSOUND = (float("nan"), float("inf"), 3e38)


def key_id(keyring: Keyring) -> str:
    """Return the name of the current key, as it stands in a signature."""
    return dict(keyring.sign(b""))[KEY_ID].decode()


KEYS = {key_id(KEYRING): KEYRING.current, key_id(Keyring(b"o" * 32)): b"o" * 32}
"""The same keyring as the oracle takes it."""


class RandomLog:
    """Writes one shard's log, record by record."""

    def __init__(self, seed: int) -> None:
        self._rng = Random(f"log:{seed}")
        self.optimizer = self._rng.choice(list(STATE_SIZE))
        self.records: list[Record] = []
        self._time, self._op = 1000, 0
        self._last: dict[bytes, tuple[int, int]] = {}
        self._put_op("spec", self._spec())

    def write(self, count: int) -> list[Record]:
        """Add `count` records and return them all."""
        for _ in range(count):
            self._pass_time()
            draw = self._rng.random()
            if draw < 0.75:
                self._event()
            elif draw < 0.80:
                self._put(self._rng.choice(_GARBAGE))
            elif draw < 0.83:
                forged = (("dl-kid", next(iter(KEYS)).encode()), ("dl-mac", b"0" * 64))
                self._put(writing.op("quarantine", TABLE, SHARD, self._op + 1, {"producer": "00"}), forged)
            else:
                self._random_op()
        return self.records

    def _pass_time(self) -> None:
        self._time += self._rng.choice([0, 1, 20, 200]) if self._rng.random() < 0.97 else 1100
        if self._rng.random() < 0.05:
            self._time -= 50

    def _put(self, value: bytes, headers: Headers = ()) -> None:
        self.records.append(Record(len(self.records), self._time, None, value, headers))

    def _sign(self, value: bytes) -> None:
        self._put(value, KEYRING.sign(value))

    def _put_op(self, kind: str, body: Mapping[str, object], step: int = 1) -> None:
        self._op += step
        self._sign(writing.op(kind, TABLE, SHARD, self._op, body))

    def _spec(self) -> dict[str, object]:
        rng = self._rng
        optimizer: dict[str, object] = {"kind": self.optimizer, "lr": rng.choice([0.05, 0.5])}
        if self.optimizer == "ftrl":
            optimizer["l1"] = 0.1
        return {
            "name": TABLE,
            "group": "g",
            "dim": DIM,
            "shards": SHARDS,
            "optimizer": optimizer,
            "init": {"seed": 5, "scale": 0.1},
            "policy": {
                "max_frame": 4096,
                "without_read_pos": rng.choice(["apply", "drop"]),
                "producer_ttl_ms": 1000,
            },
            "machine_version": 1,
            "dtype": "f32",
        }

    def _random_op(self) -> None:
        rng, kind = self._rng, self._rng.choice(_OPS)
        step = rng.choice([1, 1, 1, 1, 0])  # 0: the op before, once more
        if kind == "restore-rows":
            self._op += step
            ids = self._some_ids()
            width = STATE_SIZE[self.optimizer]
            tensors = {
                "ids": writing.ids_tensor(ids),
                "rows": writing.floats_tensor(self._floats(ids, DIM), DIM),
                "state": writing.floats_tensor(self._positive(ids, width), width),
            }
            metadata = writing.metadata(kind, TABLE, SHARD, OPS_PRODUCER, self._op)
            self._sign(writing.encode(metadata, tensors))
            return
        body: Mapping[str, object] = {}
        if kind == "spec":
            body = self._spec() if rng.random() < 0.9 else {"name": TABLE}
        elif kind == "quarantine":
            number = 3 + rng.randrange(8) if rng.random() < 0.9 else rng.randrange(3)
            body = {"producer": (bytes([number]) * 16).hex()}
        elif kind == "restore":
            body = {"version": "V", "from_epoch": 9}
        elif kind == "prepare":
            body = {"version": "V"}
        self._put_op(kind, body, step)

    def _event(self) -> None:
        rng = self._rng
        kind = rng.choices(["gradient", "upsert", "delete"], [8, 1, 1])[0]
        producer = bytes([rng.randrange(3)]) * 16
        epoch, seq = self._next_seq(producer)
        metadata = writing.metadata(kind, TABLE, SHARD, producer, seq, epoch)
        ids, width, draw = self._some_ids(), DIM, rng.random()
        if draw < 0.02:
            metadata["shard"] = "0"
        elif draw < 0.04:
            metadata["table"] = "u"
        elif draw < 0.06:
            ids = ids[::-1]
        elif draw < 0.08:
            ids = sorted([*ids, FOREIGN])
        elif draw < 0.10:
            width = DIM + 1
        elif draw < 0.12:
            metadata["schema"] = "9"
        if kind == "gradient" and rng.random() < 0.6:
            metadata["read_pos"] = str(1 << 48 | max(0, len(self.records) - rng.randrange(60)))
        if rng.random() < 0.1:
            metadata["lr"] = "3e800000"
        tensors = {"ids": writing.ids_tensor(ids)}
        if kind == "gradient":
            dtype = rng.choice(["F32", "F16", "BF16"])
            tensors["grads"] = writing.floats_tensor(self._gradients(ids, width, dtype), width, dtype)
        elif kind == "upsert":
            tensors["rows"] = writing.floats_tensor(self._floats(ids, width), width)
            if rng.random() < 0.5:
                own = STATE_SIZE[self.optimizer]
                tensors["state"] = writing.floats_tensor(self._positive(ids, own), own)
        self._put(writing.encode(metadata, tensors))

    def _next_seq(self, producer: bytes) -> tuple[int, int]:
        epoch, seq = self._last.get(producer, (0, 0))
        draw = self._rng.random()
        if draw < 0.1:
            seq = max(0, seq - self._rng.randrange(3))
        elif draw < 0.15:
            epoch, seq = epoch + 1, 0
        else:
            seq += 1
        self._last[producer] = epoch, seq
        return epoch, seq

    def _some_ids(self) -> list[int]:
        return sorted(self._rng.sample(IDS, self._rng.randrange(7)))

    def _floats(self, ids: Sequence[int], width: int) -> list[list[float]]:
        rng = self._rng
        return [
            [rng.choice(_UNSOUND) if rng.random() < 0.01 else rng.gauss(0, 1) for _ in range(width)]
            for _ in ids
        ]

    def _gradients(self, ids: Sequence[int], width: int, dtype: str) -> list[list[float]]:
        bound = 6e4 if dtype == "F16" else 3e38
        return [
            [max(-bound, min(bound, x)) if x == x else x for x in row] for row in self._floats(ids, width)
        ]

    def _positive(self, ids: Sequence[int], width: int) -> list[list[float]]:
        return [[abs(x) for x in row] for row in self._floats(ids, width)]
