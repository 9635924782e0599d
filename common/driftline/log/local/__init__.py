"""The embedded log `local://DIR`: SQLite files shared by the processes of one machine.

Invariant: correctness rests on SQLite's transactions and the kernel's file locks
alone; everything else here (heads, membership, committed offsets) saves work.
"""

from __future__ import annotations

from driftline.log.local.log import LocalLog
from driftline.log.local.members import Membership, TopicPartition

__all__ = ["LocalLog", "Membership", "TopicPartition"]
