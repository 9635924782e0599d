"""Versions, sizes, times and spans as people read and write them.

Invariant: one spelling everywhere; a time is UTC and says so.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime

from driftline.errors import InputError
from driftline.versions.drawing import Node, drawn
from driftline.versions.history import Weight
from driftline.versions.manifest import Manifest

_SPAN = re.compile(r"(\d+)([smhdw])")
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 7 * 86400}


def seconds_in(text: str) -> float:
    """Return the seconds in a span such as 90s, 15m, 2h, 7d or 4w. Raises InputError.

    Examples
    --------
    >>> seconds_in("2h")
    7200.0
    """
    found = _SPAN.fullmatch(text) if text.isascii() else None
    if found is None:
        raise InputError(f"{text!r} is no span of time: write 90s, 15m, 2h, 7d or 4w")
    return float(int(found[1]) * _SECONDS[found[2]])


def moment(seconds: float) -> str:
    """Return a time in words, UTC, to the second.

    Examples
    --------
    >>> moment(0.5)
    '1970-01-01T00:00:00Z'
    """
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def size(count: int) -> str:
    """Return a number of bytes in words.

    Examples
    --------
    >>> size(999), size(5_120_000)
    ('999 B', '5.12 MB')
    """
    amount = float(count)
    for unit in ("B", "kB", "MB", "GB"):
        if amount < 1000:
            return f"{count} B" if unit == "B" else f"{amount:.3g} {unit}"
        amount /= 1000
    return f"{amount:,.2f} TB"


def columns(rows: Iterable[Sequence[object]]) -> list[str]:
    """Return rows of cells as lines whose columns begin below each other."""
    cells = [[str(cell) for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    padded = ("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in cells)
    return [line.rstrip() for line in padded]


def origin(manifest: Manifest) -> str:
    """Return how a version came to be, '' where it simply continues its parent."""
    if manifest.base and manifest.base != manifest.parent:
        return f"rollback to {manifest.base}"
    return f"merge of {', '.join(manifest.parents[1:])}" if manifest.parents[1:] else ""


def as_dict(manifest: Manifest, weight: Weight, labels: Sequence[str]) -> Mapping[str, object]:
    """Return a version for JSON."""
    return {
        "version": manifest.version,
        "parents": list(manifest.parents),
        "base": manifest.base or None,
        "branch": manifest.branch,
        "scenario": manifest.name.scenario,
        "created": moment(manifest.created),
        "labels": list(labels),
        "rows": weight.rows,
        "changed": weight.changed,
        "bytes": weight.bytes,
        "retention": manifest.retention,
        "tables": {
            name: {
                "rows": table.rows,
                "changed": sum(part.changed for part in table.parts),
                "dim": table.dim,
                "shards": len(table.parts),
            }
            for name, table in manifest.tables.items()
        },
        "metadata": dict(manifest.metadata),
        "figures": dict(manifest.figures),
        "verdict": dict(manifest.verdict),
        "attachments": {name: each.size for name, each in manifest.attachments.items()},
    }


def log_lines(
    nodes: Sequence[Node], manifests: Sequence[Manifest], weights: Mapping[str, Weight]
) -> Iterator[str]:
    """Yield the graph with what is to be said of each version."""
    known = {each.version: each for each in manifests}
    labels = {node.name: node.labels for node in nodes}
    for picture, name in drawn(nodes):
        yield f"{picture} {told(known[name], weights[name], labels[name])}" if name else picture


def told(manifest: Manifest, weight: Weight, labels: Sequence[str]) -> str:
    """Return a version in a line."""
    words = [manifest.version]
    if labels:
        words.append(f"({', '.join(labels)})")
    words.append(moment(manifest.created))
    words.append(f"{weight.rows:,} rows, {weight.changed:,} changed, {size(weight.bytes)}")
    words += [f"{name} {value:.4g}" for name, value in manifest.figures.items()]
    how = origin(manifest)
    return "  ".join(words + ([how] if how else []))
