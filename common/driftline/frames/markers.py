"""Markers that do not fit into one frame: cut into parts, and put together again.

Invariant: a marker follows from the log alone, members in the order of names and ids, so
its parts are the same bits whoever writes them; a reader may put together parts of
several owners that were cut off one after another.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace

import numpy as np

from driftline.errors import FrameError
from driftline.frames.reasons import Reason
from driftline.frames.states import Marker
from driftline.frames.tensors import HEADER_LIMIT

PART_BYTES = (1 << 20) - HEADER_LIMIT - 8
"""Bytes of members in a part: with any header its frame has at most 1 MiB, like other frames by default."""

_Cut = tuple[int, int]  # op, parts


def split_marker(marker: Marker, limit: int = PART_BYTES) -> Iterator[Marker]:
    """Yield `marker` as parts with at most `limit` bytes of members each.

    Each part has an equal share of every tensor. A limit below the width of all tensors together
    (less than 100 bytes) cannot be kept.
    """
    widths = sum(tensor.nbytes // len(tensor) for tensor in marker.tensors.values() if len(tensor))
    total = sum(tensor.nbytes for tensor in marker.tensors.values())
    parts = (
        1 if total <= limit else -(-total // max(1, limit - widths))
    )  # a share is rounded up to a whole row
    for part in range(parts):
        tensors = {
            name: tensor[part * len(tensor) // parts : (part + 1) * len(tensor) // parts]
            for name, tensor in marker.tensors.items()
        }
        yield replace(marker, tensors=tensors, part=part, parts=parts)


def join_marker(parts: Iterable[Marker]) -> Marker:
    """Return the whole marker of all its parts, in any order. Raises FrameError `undecodable`."""
    ordered = sorted(parts, key=lambda each: each.part)
    first = ordered[0]
    if [each.part for each in ordered] != list(range(first.parts)):
        raise FrameError(Reason.UNDECODABLE, f"marker of op {first.op}: parts are missing or twice there")
    if any(each.tensors.keys() != first.tensors.keys() for each in ordered):
        raise FrameError(Reason.UNDECODABLE, f"marker of op {first.op}: its parts have other tensors")
    tensors = {name: np.concatenate([each.tensors[name] for each in ordered]) for name in first.tensors}
    return replace(first, tensors=tensors, part=0, parts=1)


class Markers:
    """The markers of one partition of an updates topic, as a reader puts them together."""

    def __init__(self) -> None:
        self._open: dict[_Cut, dict[int, Marker]] = {}
        self._complete: set[int] = set()

    def take(self, marker: Marker) -> Marker | None:
        """Note a marker or a part; return the op's whole marker the first time that it is complete.

        Raises FrameError `undecodable` for parts that do not belong together.
        """
        if marker.op in self._complete:
            return None
        cut = marker.op, marker.parts
        held = self._open.setdefault(cut, {})
        held.setdefault(marker.part, marker)
        if len(held) < marker.parts:
            return None
        self._complete.add(marker.op)
        for other in [other for other in self._open if other[0] == marker.op]:
            del self._open[other]
        return join_marker(held.values())
