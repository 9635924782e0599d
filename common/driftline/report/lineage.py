"""The versions of a group as a picture: which row and lane each has [EM3].

Invariant: a lane belongs to one version that is still to come, as in `driftline log`; so lines to
first parents never cross a version, and a lane that is free is used again before a new one is made.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from driftline.report.model import Lineage, LineageNode
from driftline.report.words import facts_of
from driftline.versions import Manifest

MOST_VERSIONS = 200


def lineage(
    manifests: Sequence[Manifest], labels: Mapping[str, Sequence[str]], most: int = MOST_VERSIONS
) -> Lineage:
    """Return the picture of `manifests`, each before its parents: the newest `most` of them."""
    shown = manifests[:most]
    places = lanes([(each.version, each.parents) for each in shown])
    nodes = tuple(
        LineageNode(
            each.version,
            row,
            places[each.version],
            each.parents,
            each.base if each.base not in ("", each.parent) else "",
            each.branch,
            each.name.scenario,
            tuple(labels.get(each.version, ())),
            each.created,
            sum(table.rows for table in each.tables.values()),
            sum(part.changed for table in each.tables.values() for part in table.parts),
            facts_of({**each.figures, **each.metadata, **each.verdict}),
        )
        for row, each in enumerate(shown)
    )
    return Lineage(nodes, max(places.values(), default=-1) + 1, len(manifests) - len(shown))


def lanes(nodes: Sequence[tuple[str, Sequence[str]]]) -> Mapping[str, int]:
    """Return the lane of each version; `nodes`: version and parents, each before its parents.

    Examples
    --------
    >>> lanes([("c", ["a"]), ("b", ["a"]), ("a", [])])
    {'c': 0, 'b': 1, 'a': 0}
    """
    known = {name for name, _ in nodes}
    waiting: list[str | None] = []  # whom each lane is kept for
    found: dict[str, int] = {}
    for name, parents in nodes:
        here = [lane for lane, awaited in enumerate(waiting) if awaited == name]
        lane = here[0] if here else _free(waiting)
        for each in here:
            waiting[each] = None
        found[name] = lane
        for number, parent in enumerate(dict.fromkeys(each for each in parents if each in known)):
            if number == 0:
                waiting[lane] = parent
            elif parent not in waiting:
                waiting[_free(waiting)] = parent
    return found


def _free(waiting: list[str | None]) -> int:
    if None in waiting:
        return waiting.index(None)
    waiting.append(None)
    return len(waiting) - 1
