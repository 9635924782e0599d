"""An incremental graph of the K nearest neighbours, whatever method keeps it.

Invariant: after `fit` and after every `update` the graph is over exactly the rows given and
not removed since; what cannot have a place in it (NaN, zero under cosine, an id twice) is
refused by name before anything changes. Same calls, same seed, same settings: same result.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from driftline.errors import InputError
from driftline.graph import propose
from driftline.graph.audit import Auditor, AuditSettings, worst
from driftline.graph.exact import ExactMethod
from driftline.graph.g2 import EXACT_ROWS, G2Method, G2Settings
from driftline.graph.lists import Lists, Places
from driftline.graph.m_order import MOrderMethod
from driftline.graph.methods import Method, MethodName
from driftline.graph.metric import Floats, Ids, Metric, outward, prepare
from driftline.graph.packing import EMPTY, Keys, distances_of, slots_of
from driftline.graph.propose import ProposerName
from driftline.graph.renew import Touched
from driftline.graph.results import BORN, MOVED, NEIGHBOUR_MOVED, REMOVED, GraphTick, Neighbours
from driftline.graph.slots import ABSENT, SlotMap

_NONE = np.empty(0, np.uint64)
_NO_HNSWLIB = "hnswlib is not installed, so every tick is exact: pip install 'driftline[graph]'"


@dataclass(frozen=True, slots=True)
class GraphSettings:
    """How a graph is kept."""

    neighbours: int = 10  # K
    metric: Metric = Metric.COSINE
    method: MethodName = MethodName.AUTO
    seed: int = 0
    order: int = 2  # M of the method m_order
    g2: G2Settings = field(default_factory=G2Settings)
    audit: AuditSettings = field(default_factory=AuditSettings)

    def __post_init__(self) -> None:
        if self.neighbours < 1:
            raise InputError(f"neighbours={self.neighbours}: a graph needs at least 1 per row")
        if not 1 <= self.order <= 4:
            raise InputError(f"order={self.order}: from 1 to 4; beyond, it is slower than method exact")


class KnnGraph:
    """K nearest neighbours of rows that come, move and go.

    >>> import numpy as np
    >>> graph = KnnGraph(GraphSettings(neighbours=1, metric=Metric.L2))
    >>> _ = graph.fit([1, 2, 3], np.array([[0.0], [1.0], [5.0]]))
    >>> tick = graph.update([3], np.array([[0.25]]))
    >>> graph.kneighbours([1, 2, 3]).ids.ravel().tolist()
    [3, 3, 1]
    """

    def __init__(self, settings: GraphSettings | None = None) -> None:
        self.settings = settings or GraphSettings()
        self._slots = SlotMap()
        self._lists: Lists | None = None
        self._method: Method | None = None
        self._auditor = Auditor(self.settings.audit, self.settings.seed)
        self._number = 0
        self._since_repair = 0
        self._note = ""

    def __len__(self) -> int:
        return len(self._slots)

    @property
    def ids(self) -> Ids:
        """Ids of all rows, ascending; a copy."""
        return self._slots.ids.copy()

    @property
    def method(self) -> MethodName:
        """The method at work: of `auto` the one chosen, and `exact` after hnswlib failed."""
        return self.settings.method if self._method is None else self._method.name

    @property
    def nbytes(self) -> int:
        """Bytes of vectors, lists and indexes, but for an HNSW index, which cannot be asked."""
        lists = 0 if self._lists is None else self._lists.nbytes
        return lists + self._slots.nbytes + (0 if self._method is None else self._method.nbytes)

    @property
    def rebuilds(self) -> int:
        """How often the proposer of g2 was built from nothing; 0 for methods without one."""
        return self._method.builds if isinstance(self._method, G2Method) else 0

    def fit(self, ids: ArrayLike, vectors: ArrayLike) -> Self:
        """Make the graph of these rows, forgetting any before.

        Raises InputError for rows that have no place in a graph, ConfigError for g2 by hnsw without hnswlib.
        """
        self._place(*self._checked(ids, vectors, None))  # unnamed: unit vectors are not kept twice
        assert self._method is not None
        try:
            self._method.build()
        except propose.IndexFailedError as error:
            self._fall_back(str(error)).build()
        return self

    def adopt(self, ids: ArrayLike, vectors: ArrayLike, neighbours: NDArray[np.uint64]) -> Self:
        """Make the graph of these rows with known neighbour ids (n, k); ids that are no rows are left out."""
        keys, rows = self._checked(ids, vectors, None)
        slots = self._place(keys, rows)
        assert self._lists is not None
        assert self._method is not None
        named = np.asarray(neighbours, np.uint64)
        members = self._slots.find(named.ravel()).reshape(named.shape)
        fan = self._lists.fan(slots, members.astype(np.int32))
        fan.sort(axis=1)
        self._lists.keys[slots, : fan.shape[1]] = fan[:, : self._lists.width]
        full = distances_of(self._lists.keys[slots, min(self.settings.neighbours, self._lists.width) - 1])
        self._lists.bound[slots] = full  # rows beyond the last known neighbour are unknown, not absent
        self._method.adopt()
        return self

    def update(
        self, ids: ArrayLike, vectors: ArrayLike, *, removed: ArrayLike = _NONE, cause: ArrayLike = MOVED
    ) -> GraphTick:
        """Go one tick on: `removed` rows end, then `ids` take `vectors`; return what that changed.

        `cause`: MOVED, PUT or RESTORED, one for all or one per id; new ids are BORN whatever it says.
        An id both removed and given is born again. Removing an unknown id changes nothing.
        """
        if self._lists is None or self._method is None:
            raise InputError("update before fit: make the graph first (fit may take zero rows)")
        keys, rows = self._checked(ids, vectors, self._lists.vectors.shape[1])
        ended = np.unique(np.asarray(removed, np.uint64).ravel())
        causes = np.broadcast_to(np.asarray(cause, np.uint8), keys.shape).copy()
        slots = self._slots.find(keys)
        new = slots == ABSENT
        causes[new | np.isin(keys, ended)] = BORN
        slots[new] = self._slots.add(keys[new])
        ended = ended[~np.isin(ended, keys)]
        ended_slots = self._slots.find(ended)
        ended, ended_slots = ended[ended_slots != ABSENT], ended_slots[ended_slots != ABSENT]
        ended_before = self._lists.keys[ended_slots, : self.settings.neighbours]
        self._lists.grow(self._slots.capacity)
        self._lists.write(slots, rows)
        self._lists.clear(ended_slots)
        self._outgrow()
        order = np.argsort(slots)
        touched = self._tick(slots[order], np.sort(ended_slots))
        tick = self._result(touched, slots, causes, ended, ended_before)
        self._slots.remove(ended)
        return tick

    def kneighbours(self, ids: ArrayLike | None = None) -> Neighbours:
        """Return the neighbours of `ids`, of all rows in ascending order without it.

        Raises InputError for an id that has no row.
        """
        wanted = self._slots.ids if ids is None else np.asarray(ids, np.uint64).ravel()
        slots = self._slots.find(wanted)
        if np.any(slots == ABSENT):
            raise InputError(f"id {wanted[slots == ABSENT][0]} has no row in the graph")
        if self._lists is None:
            return self._outward(np.empty((0, self.settings.neighbours), np.uint64))
        return self._outward(self._lists.keys[slots, : self.settings.neighbours])

    def vectors(self, ids: ArrayLike) -> Floats:
        """Return the rows of known `ids` as the graph keeps them: of unit length under cosine."""
        slots = self._slots.find(np.asarray(ids, np.uint64).ravel())
        if self._lists is None or np.any(slots == ABSENT):
            raise InputError("an id asked for has no row in the graph")
        return self._lists.vectors[slots]

    def close(self) -> None:
        """Wait for a rebuild under way."""
        if self._method is not None:
            self._method.close()

    def _checked(self, ids: ArrayLike, vectors: ArrayLike, dims: int | None) -> tuple[Ids, Floats]:
        keys = np.asarray(ids, np.uint64).ravel()
        rows = np.asarray(vectors, np.float32)
        if rows.ndim != 2 or len(rows) != len(keys) or (dims is not None and rows.shape[1] != dims):
            expected = f"({len(keys)}, {'d' if dims is None else dims})"
            raise InputError(f"vectors of shape {rows.shape} for {len(keys)} ids: expected {expected}")
        ordered = np.sort(keys)
        again = ordered[1:] == ordered[:-1]
        if again.any():
            raise InputError(f"id {ordered[1:][again][0]} occurs twice: give each row once per call")
        return keys, prepare(keys, rows, self.settings.metric)

    def _place(self, ids: Ids, rows: Floats) -> Places:
        """Put the rows into slots, in order of id, with empty lists, and choose the method."""
        self.close()
        self._slots = SlotMap()
        slots = self._slots.add(ids)
        method = self.settings.method
        if method is MethodName.AUTO:
            exact = len(ids) <= EXACT_ROWS or not self._g2_can_be()
            method = MethodName.EXACT if exact else MethodName.G2
            if exact and len(ids) > EXACT_ROWS:
                self._note = _NO_HNSWLIB
        width = self.settings.neighbours * (1 if method is MethodName.M_ORDER else 2)
        self._lists = Lists(rows.shape[1], width, self.settings.metric, len(ids))
        self._lists.write(slots, rows)
        self._method = self._made(method)
        return slots

    def _made(self, method: MethodName) -> Method:
        assert self._lists is not None
        if method is MethodName.G2:
            return G2Method(self._lists, self.settings.neighbours, self.settings.g2, self.settings.seed)
        if method is MethodName.M_ORDER:
            return MOrderMethod(self._lists, self.settings.neighbours, self.settings.order)
        return ExactMethod(self._lists, self.settings.neighbours)

    def _g2_can_be(self) -> bool:
        return self.settings.g2.proposer is not ProposerName.HNSW or propose.available()

    def _fall_back(self, failure: str) -> Method:
        self._note = f"{failure}: every tick is exact from here on"
        self._method = self._made(MethodName.EXACT)
        return self._method

    def _outgrow(self) -> None:
        """Let `auto` go from exact to g2 once the table is half as large again as what is done exactly."""
        asked = self.settings.method is MethodName.AUTO and not self._note
        if asked and isinstance(self._method, ExactMethod) and 2 * len(self._slots) > 3 * EXACT_ROWS:
            if not self._g2_can_be():
                self._note = _NO_HNSWLIB
                return
            self._method = self._made(MethodName.G2)
            try:
                self._method.adopt()
            except propose.IndexFailedError as error:
                self._fall_back(str(error))

    def _tick(self, changed: Places, removed: Places) -> Touched:
        assert self._method is not None
        try:
            return self._method.tick(changed, removed)
        except propose.IndexFailedError as error:
            return self._fall_back(str(error)).tick(changed, removed)

    def _result(
        self, touched: Touched, slots: Places, causes: NDArray[np.uint8], ended: Ids, ended_before: Keys
    ) -> GraphTick:
        assert self._lists is not None
        assert self._method is not None
        k = self.settings.neighbours
        cause = np.full(len(touched.rows), NEIGHBOUR_MOVED)
        cause[np.searchsorted(touched.rows, slots)] = causes
        now = self._lists.keys[touched.rows, :k]
        other = (np.sort(slots_of(touched.before), axis=1) != np.sort(slots_of(now), axis=1)).any(axis=1)
        shown = other | (cause != NEIGHBOUR_MOVED)
        rows, cause = touched.rows[shown], cause[shown]
        audit = self._auditor.tick(self._lists, k, slots, rows[cause == NEIGHBOUR_MOVED])
        low, settings = worst(audit), self.settings.audit
        note = self._note
        self._since_repair += 1
        # The rule as published repairs nothing; and a repair is judged by a full window before the next.
        due = self._since_repair >= settings.window and self._method.name is not MethodName.M_ORDER
        if low < settings.repair_below and due:
            self._method.repair()
            self._auditor.forget()
            self._since_repair = 0
            note = (
                f"recall {low:.3f} is below {settings.repair_below}: all lists were made anew. {note}".strip()
            )
        self._number += 1
        before = np.concatenate([touched.before[shown], ended_before])
        after = np.concatenate([now[shown], np.full(ended_before.shape, EMPTY)])
        return GraphTick(
            self._number,
            np.concatenate([self._slots.key[rows], ended]),
            np.concatenate([cause, np.full(len(ended), REMOVED)]),
            self._outward(before),
            self._outward(after),
            audit,
            low < settings.degraded_below,
            note,
        )

    def _outward(self, keys: Keys) -> Neighbours:
        distances = outward(distances_of(keys), self.settings.metric)
        return Neighbours(self._slots.members(slots_of(keys)), distances)
