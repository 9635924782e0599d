"""A deterministic world to run the real code in: time, processes, Redis and the log.

Invariant: a run is a function of its seed. `run(seed, main)` gives `main` a `World`;
`FakeRedis` and `FakeLog` live in it, `Process` handles reach them.
"""

from tests.simulation.world.log_fake import FakeLog, FakeLogHandle
from tests.simulation.world.loop import DeadlockError, RunawayError
from tests.simulation.world.process import Process, ProcessKilledError
from tests.simulation.world.redis_fake import FakeConnection, FakeRedis, ReplyError, pack
from tests.simulation.world.schedule import CALM, ROUGH, Action, FaultRates, Storm
from tests.simulation.world.world import World, run

__all__ = [
    "CALM",
    "ROUGH",
    "Action",
    "DeadlockError",
    "FakeConnection",
    "FakeLog",
    "FakeLogHandle",
    "FakeRedis",
    "FaultRates",
    "Process",
    "ProcessKilledError",
    "ReplyError",
    "RunawayError",
    "Storm",
    "World",
    "pack",
    "run",
]
