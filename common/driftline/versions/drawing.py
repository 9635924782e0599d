"""A graph of versions as lines of text, and in the language of Graphviz.

Invariant: a lane of the picture belongs to one version that is still to come, so lines
never cross a version; a lane that is free is used again before a new one is made.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Node:
    """A version as the picture shows it."""

    name: str
    parents: tuple[str, ...] = ()
    base: str = ""  # of a rollback: whose rows it has
    labels: tuple[str, ...] = field(default=())


def drawn(nodes: Sequence[Node]) -> Iterator[tuple[str, str]]:
    """Yield the lines of a picture and the name of the version in each, '' in lines between.

    `nodes` come before their parents. Parents that are not among them have no lane.

    Examples
    --------
    >>> fork = [Node("c", ("a",)), Node("b", ("a",)), Node("a")]
    >>> for line, name in drawn(fork):
    ...     print(f"{line} {name}".rstrip())
    * c
    | * b
    |/
    * a
    """
    known = {node.name for node in nodes}
    lanes: list[str | None] = []
    for node in nodes:
        here = [at for at, name in enumerate(lanes) if name == node.name]
        at = here[0] if here else _free(lanes, 0)
        lanes[at] = node.name
        for other in reversed(here[1:]):  # the farthest first: the others stay upright
            lanes[other] = None
            yield _joined(lanes, at, other), ""
        yield _row(lanes, at), node.name
        parents = [name for name in dict.fromkeys(node.parents) if name in known]
        lanes[at] = parents[0] if parents else None
        for parent in parents[1:]:
            beside = _free(lanes, at + 1)
            yield _forked(lanes, at, beside), ""
            lanes[beside] = parent
        while lanes and lanes[-1] is None:
            lanes.pop()


def _free(lanes: list[str | None], first: int) -> int:
    """Return a lane from `first` on that belongs to nobody."""
    for at in range(first, len(lanes)):
        if lanes[at] is None:
            return at
    lanes.extend([None] * (max(first - len(lanes), 0) + 1))
    return len(lanes) - 1


def _row(lanes: Sequence[str | None], at: int) -> str:
    marks = ("*" if each == at else "|" if name is not None else " " for each, name in enumerate(lanes))
    return " ".join(marks).rstrip()


def _joined(lanes: Sequence[str | None], at: int, other: int) -> str:
    """Return the line in which lane `other` bends into lane `at` on its left."""
    text = _bar(lanes, max(other, at))
    for place in range(2 * at + 1, 2 * other - 1):
        text[place] = text[place].replace(" ", "_")
    text[2 * other - 1] = "/"
    return "".join(text).rstrip()


def _forked(lanes: Sequence[str | None], at: int, beside: int) -> str:
    """Return the line in which a new lane `beside` leaves lane `at`."""
    text = _bar(lanes, beside)
    text[2 * at] = "|"
    for place in range(2 * at + 1, 2 * beside - 1):
        text[place] = text[place].replace(" ", "-")
    text[2 * beside - 1] = "\\" if beside == at + 1 else "-"
    text[2 * beside] = " " if beside == at + 1 else "."
    return "".join(text).rstrip()


def _bar(lanes: Sequence[str | None], last: int) -> list[str]:
    text = [" "] * (2 * max(len(lanes), last + 1))
    for at, name in enumerate(lanes):
        text[2 * at] = " " if name is None else "|"
    return text


def dot(nodes: Sequence[Node], details: Mapping[str, str]) -> Iterator[str]:
    """Yield a Graphviz graph: an arrow to what a version continues, a dashed one to what it went back to."""
    yield "digraph versions {"
    yield "  rankdir=BT; node [shape=box, fontname=monospace];"
    for node in nodes:
        label = "\\n".join([node.name, *node.labels, *filter(None, [details.get(node.name, "")])])
        yield f"  {_quoted(node.name)} [label={_quoted(label)}];"
    for node in nodes:
        for number, parent in enumerate(node.parents):
            style = " [style=bold]" if number else ""
            yield f"  {_quoted(node.name)} -> {_quoted(parent)}{style};"
        if node.base and node.base not in node.parents:
            yield f"  {_quoted(node.name)} -> {_quoted(node.base)} [style=dashed, label=rollback];"
    yield "}"


def _quoted(text: str) -> str:
    return '"' + text.replace('"', '\\"') + '"'
