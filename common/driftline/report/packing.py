"""Columns of a report, made small.

Invariant: what is packed is what was measured, but for the distances of neighbours, which are kept
to 1/65535 of a row's own range: a page draws them, nobody computes with them.
"""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from driftline.graph.metric import Floats, Ids, Metric
from driftline.report.model import NOBODY, Column, NeighbourLists
from driftline.report.neighbours import Nearest

_CODES = 0xFFFF


def column(array: NDArray[np.generic]) -> Column:
    """Return an array of one of the kinds that a page reads, for JSON."""
    kind = array.dtype.newbyteorder("<")
    assert kind.str[1:] in ("u1", "u2", "u8", "f4"), f"a page reads no {kind}"
    data = np.ascontiguousarray(array, kind).tobytes()
    return Column(kind.str[1:], array.shape, base64.b64encode(data).decode())


def unpacked(packed: Column) -> NDArray[np.generic]:
    """Return the array of a column, read-only."""
    kind = np.dtype(f"<{packed.dtype}")
    return np.frombuffer(base64.b64decode(packed.data), kind).reshape(packed.shape)


@dataclass(frozen=True, slots=True, eq=False)
class Named:
    """The rows that neighbour lists name."""

    ids: Ids  # ascending
    drawn: NDArray[np.uint16]  # (len(ids),) place among the drawn rows, or NOBODY

    @classmethod
    def of(cls, sides: Sequence[tuple[Ids, Ids, Nearest, Nearest]], drawn: Ids) -> Named:
        """Return the rows named by lists over the old rows and over the new ones, and those drawn."""
        ids = drawn
        for old, new, before, after in sides:
            for rows, near in ((old, before), (new, after)):
                ids = np.union1d(ids, rows[np.unique(near.places[near.listed])])
        assert len(ids) <= NOBODY, f"{len(ids)} rows named: a place has 16 bits, `Sizes.pool` is too large"
        place = np.searchsorted(drawn, ids)
        known = np.isin(ids, drawn, assume_unique=True)
        return cls(ids, np.where(known, place, NOBODY).astype(np.uint16))

    def places(self, rows: Ids, near: Nearest) -> NDArray[np.uint16]:
        """Return lists over `rows` as places in `ids`."""
        found = np.full(near.places.shape, NOBODY, np.uint16)
        listed = near.listed
        found[listed] = np.searchsorted(self.ids, rows[near.places[listed]])
        return found


def packed_lists(
    metric: Metric, named: Named, old_ids: Ids, new_ids: Ids, old: Nearest, new: Nearest
) -> NeighbourLists:
    """Return the lists of the drawn rows under one distance."""
    both = np.concatenate([old.distances, new.distances], axis=1)
    finite = np.isfinite(both)
    low = np.where(finite, both, np.inf).min(axis=1, initial=np.inf)
    high = np.where(finite, both, -np.inf).max(axis=1, initial=-np.inf)
    low = np.where(np.isfinite(low), low, 0).astype(np.float32)
    high = np.where(np.isfinite(high), high, 0).astype(np.float32)
    return NeighbourLists(
        metric.value,
        column(named.places(old_ids, old)),
        column(named.places(new_ids, new)),
        column(low),
        column(high),
        column(_codes(old.distances, low, high)),
        column(_codes(new.distances, low, high)),
    )


def _codes(distances: Floats, low: Floats, high: Floats) -> NDArray[np.uint16]:
    span = np.where(high > low, high - low, 1).astype(np.float64)[:, None]
    share = (np.where(np.isfinite(distances), distances, low[:, None]) - low[:, None]) / span
    return np.rint(share * _CODES).astype(np.uint16)
