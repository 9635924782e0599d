"""A trainer that survives being killed at any moment: a name, a checkpoint, and steps.

What it pushed after its last checkpoint it pushes again when it resumes; the store
recognises those steps by their number and applies none of them twice. Run it where
`driftline up` runs, kill it, run it again.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

import driftline

CHECKPOINT = Path("checkpoint.json")
EVERY = 10  # steps between checkpoints
IDS = np.arange(100, dtype=np.uint64)
TARGETS = np.random.default_rng(1).normal(0, 0.1, (len(IDS), 8)).astype(np.float32)


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """Where the trainer goes on; a real one holds its model, too."""

    step: int = 0  # the next step to push
    epoch: int = 0  # raise it to go back on purpose: steps behind this one then count anew


def load() -> Checkpoint:
    return Checkpoint(**json.loads(CHECKPOINT.read_text())) if CHECKPOINT.exists() else Checkpoint()


def save(checkpoint: Checkpoint) -> None:
    draft = CHECKPOINT.with_suffix(".new")
    draft.write_text(json.dumps(asdict(checkpoint)))
    draft.replace(CHECKPOINT)  # whole or not at all


def batch_of(step: int) -> NDArray[np.uint64]:
    """The same ids for the same step, in this run and after a resume."""
    return np.random.default_rng(step).choice(IDS, 32, replace=False)


def train(until: int, *, stop_at: int | None = None) -> None:
    """Train up to step `until`; `stop_at` plays a crash: it ends between two checkpoints."""
    start = load()
    with driftline.connect(producer="trainer-0", producer_epoch=start.epoch) as client:
        spec = driftline.TableSpec("resumed", dim=8, shards=2, optimizer={"kind": "sgd", "lr": 0.5})
        table = client.create_table(spec)
        for step in range(start.step, until):
            if step == stop_at:
                return
            ids = batch_of(step)
            rows = table.get(ids, read_your_writes=True)
            table.push(ids, rows.vectors - TARGETS[ids], step=step, read=rows.read)
            if (step + 1) % EVERY == 0:
                client.flush()  # a checkpoint must not be ahead of what the log has acknowledged
                save(Checkpoint(step + 1, start.epoch))
        error = np.abs(table.get(IDS, read_your_writes=True).vectors - TARGETS).mean()
        print(f"steps {start.step} to {until}: mean error {error:.4f}")


if __name__ == "__main__":
    train(30, stop_at=17)  # the last checkpoint says 10: steps 10 to 16 are pushed again below
    train(30)
