"""An independent judge: the state a shard must be in, computed id by id in plain Python.

Invariant: nothing in here imports driftline, so an error made twice had to be made
by two people. `Shard.apply` takes log records, `Shard.table` and `Shard.position`
say what must be in Redis, `redis_image` says it in bytes.
"""

from tests.oracle.model import Expected, Outcome, Position, VersionRows, differences, redis_image
from tests.oracle.shard import Shard, replay

__all__ = ["Expected", "Outcome", "Position", "Shard", "VersionRows", "differences", "redis_image", "replay"]
