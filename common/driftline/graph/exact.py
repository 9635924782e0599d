"""Exact incremental lists: each changed row is compared with every row.

Invariant: after every tick the first `neighbours` entries of every list are exact. The
spare entries and the bound make that cheap: a list is made anew only when more of it has
left than it had to spare.
"""

from __future__ import annotations

import numpy as np

from driftline.graph import brute
from driftline.graph.lists import Lists, Places
from driftline.graph.methods import MethodName
from driftline.graph.packing import Keys, slots_of
from driftline.graph.renew import Found, Touched, renew


class ExactMethod:
    """Costs (changed × live × dims) per tick; the oracle of the others."""

    name = MethodName.EXACT
    nbytes = 0

    def __init__(self, lists: Lists, neighbours: int) -> None:
        self._lists = lists
        self._neighbours = neighbours

    def build(self) -> None:
        """Make every list from nothing: live² × dims."""
        rows = np.flatnonzero(self._lists.alive)
        self._lists.settle(rows, self._nearest(rows))

    def adopt(self) -> None:
        """Make the lists anew: a snapshot does not hold the spare entries that certify them."""
        self.build()

    def repair(self) -> None:
        """Make the lists anew."""
        self.build()

    def tick(self, changed: Places, removed: Places) -> Touched:
        """Renew what changed."""
        lists = self._lists
        gone = np.zeros(len(lists.alive), bool)
        gone[changed] = gone[removed] = True
        members = slots_of(lists.keys)
        holds = (gone[members] & (members >= 0)).any(axis=1) & lists.alive & ~gone
        found = brute.nearest_and_entrants(lists, changed, lists.width)
        pairs = Found(found.keys, found.holders, found.entrants)
        return renew(lists, changed, np.flatnonzero(holds), gone, pairs, self._neighbours, self._nearest)

    def close(self) -> None:
        """Nothing to let go of."""

    def _nearest(self, rows: Places) -> Keys:
        return brute.nearest(self._lists, rows, self._lists.width)
