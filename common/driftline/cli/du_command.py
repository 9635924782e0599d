"""`driftline du`: what takes room in the store, and what removing a version would free."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING

import typer

from driftline.cli.options import AsJson, on_versions
from driftline.cli.version_options import print_json, progress, reading
from driftline.config import Settings
from driftline.versions.wording import columns, moment, size

if TYPE_CHECKING:
    from driftline.versions.footprint import Usage


@on_versions
def du(
    settings: Settings,
    as_json: AsJson = False,
) -> None:
    """Say what takes room: by version, the oldest first, by branch and by tier.

    grown: what the version added to the one before it; own: what removing it would free; shared: what
    other versions need, too.
    """
    from driftline.versions.footprint import usage

    repository = reading(settings)
    with progress(as_json) as bars:
        task = bars.add_task("manifests", total=None)
        found = usage(repository, lambda done, total: bars.update(task, completed=done, total=total))
    if as_json:
        print_json(as_dict(found))
        return
    for line in lines(found):
        typer.echo(line)


def as_dict(found: Usage) -> dict[str, object]:
    """Return what takes room, for JSON."""
    whole = asdict(found)
    for each in whole["versions"]:
        each["created"] = moment(each["created"])
    return whole


def lines(found: Usage) -> list[str]:
    """Return what takes room, in words."""
    cells: list[Sequence[object]] = [
        ("version", "branch", "rows", "changed", "grown", "own", "shared", "class", "largest error")
    ]
    for each in found.versions:
        off = f"{each.error:.3g}" if each.error else "-"
        counts = (f"{each.rows:,}", f"{each.changed:,}", size(each.grown), size(each.own), size(each.shared))
        cells.append((each.version, each.branch, *counts, each.retention, off))
    told = columns(cells)
    branches: list[Sequence[object]] = [("branch", "versions", "own", "shared")]
    branches += [(each.branch, each.versions, size(each.own), size(each.shared)) for each in found.branches]
    tiers: list[Sequence[object]] = [("tier", "segments", "rows", "bytes", "largest error")]
    for tier in found.tiers:
        off = f"{tier.error:.3g}" if tier.error else "-"
        tiers.append((tier.tier, tier.segments, f"{tier.rows:,}", size(tier.bytes), off))
    kinds = [f"{name} {size(count)}" for name, count in sorted(found.kinds.items())]
    kinds += [f"manifests {size(found.manifests)}", f"unreferenced {size(found.unreferenced)}"]
    return [
        *told,
        "",
        *columns(branches),
        "",
        *columns(tiers),
        "",
        f"{size(found.total)}: {', '.join(kinds)}",
    ]
