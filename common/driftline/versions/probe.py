"""Whether an object store's create-if-absent is atomic: found out by racing it.

The commit of a version rests on it: whoever creates the manifest first has the
name. A store that lets two win would lose a version without a word.
"""

from __future__ import annotations

import threading
import uuid
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from driftline.errors import ObjectExistsError
from driftline.versions.stores import ObjectStore


@dataclass(frozen=True, slots=True)
class RaceResult:
    """What a race showed: per round, how many writers believe that they made the object."""

    winners: tuple[int, ...]
    kept: bool  # whether each winner's bytes are what is read, also after a late writer tried

    @property
    def atomic(self) -> bool:
        """Whether exactly one writer won each round and its object stayed."""
        return self.kept and all(count == 1 for count in self.winners)


def race_create_if_absent(store: ObjectStore, contenders: int = 8, rounds: int = 8) -> RaceResult:
    """Let `contenders` threads create the same object at once, `rounds` times over; cleans up.

    Raises ObjectStoreUnavailableError and ConfigError as the store does.
    """
    folder = f"probe/{uuid.uuid4().hex}"
    counts: list[int] = []
    kept = True
    with ThreadPoolExecutor(contenders) as pool:
        for number in range(rounds):
            key, gate = f"{folder}/{number}", threading.Barrier(contenders)
            tries = pool.map(lambda who, key=key, gate=gate: _try(store, key, who, gate), range(contenders))
            won = [who for who, made in enumerate(tries) if made]
            late = _create(store, key, b"late")
            kept = kept and not late and store.get(key) in {_bytes_of(who) for who in won}
            counts.append(len(won))
    store.delete([f"{folder}/{number}" for number in range(rounds)])
    return RaceResult(tuple(counts), kept)


def _try(store: ObjectStore, key: str, who: int, gate: threading.Barrier) -> bool:
    gate.wait()
    return _create(store, key, _bytes_of(who))


def _create(store: ObjectStore, key: str, data: bytes) -> bool:
    try:
        store.create(key, data)
    except ObjectExistsError:
        return False
    return True


def _bytes_of(who: int) -> bytes:
    return b"%d" % who * 1000
