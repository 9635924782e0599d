"""What stands for a record that could not be unpacked from its log.

Invariant: a record is unreadable if and only if one of its headers is named UNREADABLE,
whoever wrote it. So every reader of a log refuses the same records, now and on replay.
"""

from __future__ import annotations

from driftline.errors import FrameError
from driftline.frames.headers import Headers
from driftline.frames.reasons import Reason

UNREADABLE = "dl-unreadable"
_REASONS = {str(each): each for each in (Reason.BAD_HEADER, Reason.OVERSIZED, Reason.UNDECODABLE)}


def unreadable(reason: Reason, detail: bytes) -> tuple[str, bytes]:
    """Return the header that marks a record as unreadable."""
    return UNREADABLE, reason.encode() + b" " + detail


def check_readable(headers: Headers) -> None:
    """Raise FrameError, with the reason it was marked with, for a record that is unreadable."""
    for name, value in headers:
        if name == UNREADABLE:
            code, _, detail = value.partition(b" ")
            reason = _REASONS.get(code.decode("latin-1"), Reason.BAD_HEADER)
            raise FrameError(reason, detail[:500].decode("utf-8", "backslashreplace"))
