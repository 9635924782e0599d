"""G2: cells or a stale HNSW index propose, reverse neighbours and bounds repair.

Invariant: every list holds current distances (see `renew`), whatever is proposed; what
can be wrong is only that a near row is missing, and the audit measures how often.
Per tick: candidates of each changed row from the proposer and from its M-order neighbourhood in
the old graph; then from those who list its new neighbours; pairs nearer than a row's bound
enter that row's list; lists with too few entries are made anew.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from driftline.graph import brute
from driftline.graph.cells import Cells, CellSettings
from driftline.graph.expand import neighbourhood, reverse_pairs
from driftline.graph.lists import Lists, Places
from driftline.graph.methods import MethodName
from driftline.graph.packing import EMPTY, Keys, distances_of, distinct, grouped, merged, pack, slots_of
from driftline.graph.propose import Hnswlib, IndexFailedError, IndexSettings, Proposer, ProposerName
from driftline.graph.renew import Found, Touched, renew
from driftline.graph.reverse import ReverseIndex

_CHUNK = 256  # rows at a time: their candidates and pairs stay within some 10 MB
_ASKED = 2_048  # rows that the proposer is asked for at a time
_UPHEAVAL = 0.25
EXACT_ROWS = 20_000
"""Up to here comparing all with all is as fast as proposing."""


@dataclass(frozen=True, slots=True)
class G2Settings:
    """What can be tuned; the defaults are those the figures in the docs were reached with."""

    order: int = 2  # M of the M-order neighbourhood
    proposals: int = 4  # candidates asked of the proposer, in multiples of `neighbours`
    proposer: ProposerName = ProposerName.CELLS
    sweep: float = 0.0  # share of the rows looked at again each tick, changed or not
    cells: CellSettings = CellSettings()  # noqa: RUF009 - frozen
    index: IndexSettings = IndexSettings()  # noqa: RUF009 - frozen; of the proposer hnsw


class G2Method:
    """Incremental graph with an approximate proposer."""

    name = MethodName.G2

    def __init__(self, lists: Lists, neighbours: int, settings: G2Settings, seed: int) -> None:
        self._lists = lists
        self._neighbours = neighbours
        self._settings = settings
        self._reverse = ReverseIndex()
        hnsw = settings.proposer is ProposerName.HNSW
        self._proposer: Proposer = (
            Hnswlib(lists, settings.index, seed) if hnsw else Cells(lists, settings.cells, seed)
        )
        self._rng = np.random.default_rng((seed, 2))

    @property
    def nbytes(self) -> int:
        """Bytes of the reverse index and of the proposer."""
        return self._reverse.nbytes + self._proposer.nbytes

    @property
    def builds(self) -> int:
        """How many indexes were begun."""
        return self._proposer.builds

    def build(self) -> None:
        """Make every list: exactly up to EXACT_ROWS rows, else from the index."""
        self._proposer.build()
        rows = np.flatnonzero(self._lists.alive)
        if len(rows) <= EXACT_ROWS:
            self._lists.settle(rows, brute.nearest(self._lists, rows, self._lists.width))
        else:
            for start in range(0, len(rows), _ASKED):
                part = rows[start : start + _ASKED]
                near = self._proposer.search(part, 2 * self._lists.width)
                self._lists.settle(part, merged(self._lists.fan(part, near), self._lists.width))
            # The proposer alone misses some neighbours of 1,000; theirs know most of them.
            for start in range(0, len(rows), _CHUNK):
                part = rows[start : start + _CHUNK]
                beyond = self._lists.fan(part, neighbourhood(self._lists, part, 2, self._neighbours))
                both = np.concatenate([self._lists.keys[part], beyond], axis=1)
                self._lists.settle(part, merged(both, self._lists.width))
        self._reverse.rebuild(self._lists.keys)

    def adopt(self) -> None:
        """Index rows and lists as they are."""
        self._proposer.build()
        self._reverse.rebuild(self._lists.keys)

    def repair(self) -> None:
        """Build the index anew, then look at every row again."""
        self._proposer.build()
        self._look_again(np.flatnonzero(self._lists.alive))

    def tick(self, changed: Places, removed: Places) -> Touched:
        """Renew what changed. Raises IndexFailedError with the lists as they were."""
        lists = self._lists
        if len(changed) > _UPHEAVAL * len(lists):
            self._proposer.build()  # what it learned is of a table that is no more
        self._proposer.moved(changed, removed)
        newborn = changed[lists.keys[changed, 0] == EMPTY]
        if len(newborn):
            self._proposer.born(newborn)
        gone = np.zeros(len(lists.alive), bool)
        gone[changed] = gone[removed] = True
        away = distinct(np.concatenate([changed, removed]))
        held = distinct(self._reverse.holders(away).sources)
        held = held[lists.alive[held] & ~gone[held]]
        members = slots_of(lists.keys[held])
        place = gone[members] & (members >= 0)
        line, column = np.nonzero(place & lists.alive[members])
        holders = held[place.any(axis=1)]
        found = self._search(changed)
        # Rows that listed a changed one get it back at its new distance, if that is within their bound.
        kept = lists.measured(held[line], members[line, column].astype(np.int64))
        pairs = Found(found.own, np.concatenate([found.rows, held[line]]), np.concatenate([found.keys, kept]))
        touched = renew(lists, changed, holders, gone, pairs, self._neighbours, self._refill)
        for rows, keys in touched.added:
            self._reverse.add(rows, keys)
        self._reverse.settle(lists.keys)
        if self._settings.sweep:
            live = np.flatnonzero(lists.alive)
            count = min(len(live), round(self._settings.sweep * len(live)))
            self._look_again(np.sort(self._rng.choice(live, count, replace=False)))
        self._proposer.advance(len(changed) + len(removed))
        return touched

    def close(self) -> None:
        """Wait for a rebuild under way."""
        self._proposer.close()

    def _search(self, changed: Places) -> Found:
        own = np.full((len(changed), self._lists.width), EMPTY)
        rows: list[Places] = [np.empty(0, np.int64)]
        keys: list[Keys] = [np.empty(0, np.uint64)]
        proposed = self._proposed(changed)
        for start in range(0, len(changed), _CHUNK):
            part = changed[start : start + _CHUNK]
            fan = self._candidates(part, proposed[start : start + _CHUNK])
            mine = merged(fan.copy(), self._lists.width)
            self._collect(rows, keys, part, fan)
            # Who jumped is now among strangers, whose neighbours its old place does not know.
            fan = self._lists.fan(part, self._beyond(mine))
            mine = merged(np.concatenate([mine, fan], axis=1), self._lists.width)
            self._collect(rows, keys, part, fan)
            line, q = reverse_pairs(self._reverse, part, mine, self._neighbours)
            alive = self._lists.alive[q]
            line, q = line[alive], q[alive]
            distances = self._lists.distances(part[line], q)
            enters = distances <= self._lists.bound[q]
            rows.append(q[enters])
            keys.append(pack(distances[enters], part[line[enters]].astype(np.int32)))
            better = distances < distances_of(mine[line, -1])
            lines, table = grouped(
                line[better], pack(distances[better], q[better].astype(np.int32)), self._lists.width
            )
            mine[lines] = merged(np.concatenate([mine[lines], table], axis=1), self._lists.width)
            own[start : start + _CHUNK] = mine
        return Found(own, np.concatenate(rows), np.concatenate(keys))

    def _proposed(self, rows: Places) -> NDArray[np.int32]:
        return self._proposer.propose(rows, self._settings.proposals * self._neighbours + 1)

    def _candidates(self, rows: Places, proposed: NDArray[np.int32]) -> Keys:
        around = neighbourhood(self._lists, rows, self._settings.order, self._neighbours)
        return self._lists.fan(rows, np.concatenate([proposed, around], axis=1))

    def _beyond(self, keys: Keys) -> NDArray[np.int32]:
        """Return the neighbours (n, k²) of the first neighbours in `keys`."""
        near = slots_of(keys[:, : self._neighbours])
        found = slots_of(self._lists.keys[np.maximum(near, 0), : self._neighbours])
        found[near < 0] = -1
        return found.reshape(len(keys), -1)

    def _collect(self, rows: list[Places], keys: list[Keys], part: Places, fan: Keys) -> None:
        others = slots_of(fan)
        distances = distances_of(fan)
        line, place = np.nonzero((others >= 0) & (distances <= self._lists.bound[others]))
        rows.append(others[line, place].astype(np.int64))
        keys.append(pack(distances[line, place], part[line].astype(np.int32)))

    def _refill(self, rows: Places) -> Keys:
        out = np.full((len(rows), self._lists.width), EMPTY)
        for start in range(0, len(rows), _CHUNK):
            part = rows[start : start + _CHUNK]
            try:
                fan = np.concatenate(
                    [self._candidates(part, self._proposed(part)), self._lists.keys[part]], axis=1
                )
            except IndexFailedError:  # half-way through a tick: finish it; the next one will say so
                fan = brute.nearest(self._lists, part, self._lists.width)
            out[start : start + _CHUNK] = merged(fan, self._lists.width)
        short = np.flatnonzero(
            np.count_nonzero(out != EMPTY, axis=1) < min(self._neighbours, len(self._lists) - 1)
        )
        if len(short):  # a corner that neither index nor graph reaches
            out[short] = brute.nearest(self._lists, rows[short], self._lists.width)
        return out

    def _look_again(self, rows: Places) -> None:
        """Merge fresh candidates into the lists of `rows`, and `rows` into others' lists."""
        lists = self._lists
        for start in range(0, len(rows), 16 * _CHUNK):
            part = rows[start : start + 16 * _CHUNK]
            found = self._search(part)
            own = merged(np.concatenate([lists.keys[part], found.own], axis=1), lists.width)
            none = np.zeros(len(lists.alive), bool)
            pairs = Found(own, found.rows, found.keys)
            touched = renew(lists, part, part[:0], none, pairs, self._neighbours, self._refill)
            for written, keys in touched.added:
                self._reverse.add(written, keys)
            self._reverse.settle(lists.keys)
