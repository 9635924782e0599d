"""JSON for those who have no client of ours: messages of the ingest topic, and the frames they become.

Invariant: pure. A message gives the same frames in every router and every release.
"""

from __future__ import annotations

from driftline.ingest.frames import frames_of
from driftline.ingest.message import MAX_MESSAGE, Message, parse_message

__all__ = ["MAX_MESSAGE", "Message", "frames_of", "parse_message"]
