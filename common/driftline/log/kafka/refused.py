"""A batch that cannot be unpacked as a whole."""

from __future__ import annotations

from driftline.frames.reasons import Reason


class RefusedError(Exception):
    """Caught where the batch is replaced by what stands for it; `reason` is the dead letter's code."""

    def __init__(self, reason: Reason, message: str) -> None:
        super().__init__(message)
        self.reason = reason
