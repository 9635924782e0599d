"""What a tick does to the lists once distances are known; the same for every method that keeps them true.

Invariant: afterwards no list names a row that is gone, or a changed row at its old distance,
and every list has at least `neighbours` entries if that many rows live and `refill` finds them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from driftline.graph.lists import Lists, Places
from driftline.graph.packing import EMPTY, Keys, distances_of, distinct, grouped, merged, slots_of

Refill = Callable[[Places], Keys]


@dataclass(frozen=True, slots=True)
class Found:
    """Fresh lists of the changed rows, and pairs (row, key) that may enter any list."""

    own: Keys  # (c, width)
    rows: Places  # (e,)
    keys: Keys  # (e,)


@dataclass(frozen=True, slots=True)
class Touched:
    """Rows whose lists a tick wrote, ascending, and their first neighbours before it."""

    rows: Places  # (t,)
    before: Keys  # (t, neighbours)
    added: tuple[tuple[Places, Keys], ...]  # edges that may be new, for the reverse index
    refilled: int


def renew(
    lists: Lists,
    changed: Places,
    holders: Places,
    gone: NDArray[np.bool_],
    found: Found,
    neighbours: int,
    refill: Refill,
) -> Touched:
    """Apply one tick.

    `changed` are live rows with fresh lists in `found.own`; `holders` the unchanged rows that listed
    one of `gone` (mask over slots: changed or removed). Pairs beyond a row's bound are dropped.
    """
    is_changed = np.zeros(len(lists.alive), bool)
    is_changed[changed] = True
    candidates = distinct(np.concatenate([found.rows, holders, changed]))
    earlier = lists.keys[candidates, :neighbours]
    lists.settle(changed, found.own)

    inside = lists.alive[found.rows] & (distances_of(found.keys) <= lists.bound[found.rows])
    rows, entering = grouped(found.rows[inside], found.keys[inside], lists.width)
    written = distinct(np.concatenate([rows, holders]))
    mine = lists.keys[written]
    members = slots_of(mine)
    mine[(members >= 0) & gone[members] & ~is_changed[written][:, None]] = EMPTY
    table = np.full((len(written), entering.shape[1]), EMPTY)
    table[np.searchsorted(written, rows)] = entering
    renewed = merged(np.concatenate([mine, table], axis=1), lists.width)
    lists.keys[written] = renewed
    lists.bound[written] = np.minimum(lists.bound[written], distances_of(renewed[:, -1]))

    entries = np.count_nonzero(renewed != EMPTY, axis=1)
    # With so few rows that a list lacks entries, whoever comes is welcome, however far.
    lists.bound[written[entries < neighbours]] = np.inf
    short = written[entries < min(neighbours, len(lists) - 1)]
    added = [(changed, found.own), (rows, entering)]
    if len(short):
        lists.settle(short, refill(short))
        added.append((short, lists.keys[short]))
    touched = distinct(np.concatenate([written, changed]))
    kept = np.searchsorted(candidates, touched)
    return Touched(touched, earlier[kept], tuple(added), len(short))
