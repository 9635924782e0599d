"""Dead letters: list what was refused, look at it, publish it again or put it aside."""

from __future__ import annotations

from driftline.dlq.letters import At, Letter, Place, Status
from driftline.dlq.queue import DeadLetters, Replayed
from driftline.dlq.replaying import Refused
from driftline.dlq.waiting import Outcome, wait_for

__all__ = ["At", "DeadLetters", "Letter", "Outcome", "Place", "Refused", "Replayed", "Status", "wait_for"]
