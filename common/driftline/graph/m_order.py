"""The patent's rule alone: renew each changed row from its M-order neighbours.

Invariant: only the lists of changed rows, and those that named a removed row, are written.
Lists of unchanged rows go stale: each changed row alters 5 to 6 of them, so recall falls to
.90 after 20 ticks of 1% and goes on falling. Here for comparison, and for those who want the
rule as published. Source: US 2025/0265235 A1.
"""

from __future__ import annotations

import numpy as np

from driftline.graph import brute
from driftline.graph.expand import neighbourhood
from driftline.graph.lists import Lists, Places
from driftline.graph.methods import MethodName
from driftline.graph.packing import EMPTY, Keys, distinct, merged, slots_of
from driftline.graph.renew import Touched

_CHUNK = 256


class MOrderMethod:
    """Candidates are all rows within `order` hops in the graph of the tick before."""

    name = MethodName.M_ORDER
    nbytes = 0

    def __init__(self, lists: Lists, neighbours: int, order: int) -> None:
        self._lists = lists
        self._neighbours = neighbours
        self._order = order

    def build(self) -> None:
        """Make every list exactly: the rule says how to go on, not how to begin."""
        rows = np.flatnonzero(self._lists.alive)
        self._lists.settle(rows, brute.nearest(self._lists, rows, self._lists.width))

    def adopt(self) -> None:
        """Take the lists as they are."""

    def repair(self) -> None:
        """Make the lists exactly."""
        self.build()

    def tick(self, changed: Places, removed: Places) -> Touched:
        """Renew the changed rows; strike out the removed ones. A newborn row is compared with every row."""
        lists = self._lists
        dead = np.zeros(len(lists.alive), bool)
        dead[removed] = True
        members = slots_of(lists.keys)
        struck = (members >= 0) & dead[members]
        holders = np.flatnonzero(struck.any(axis=1) & lists.alive)
        touched = distinct(np.concatenate([holders, changed]))
        before = lists.keys[touched, : self._neighbours]
        fresh = self._renewed(changed)
        lists.keys[struck] = EMPTY
        lists.keys[holders] = np.sort(lists.keys[holders], axis=1)
        lists.settle(changed, fresh)
        return Touched(touched, before, (), 0)

    def close(self) -> None:
        """Nothing to let go of."""

    def _renewed(self, rows: Places) -> Keys:
        lists = self._lists
        out = np.full((len(rows), lists.width), EMPTY)
        for start in range(0, len(rows), _CHUNK):
            part = rows[start : start + _CHUNK]
            around = neighbourhood(lists, part, self._order, self._neighbours)
            out[start : start + _CHUNK] = merged(lists.fan(part, around), lists.width)
        lonely = np.flatnonzero(out[:, 0] == EMPTY)
        out[lonely] = brute.nearest(lists, rows[lonely], lists.width)
        return out
