"""`driftline log`: the versions of a group, as a graph."""

from __future__ import annotations

from typing import Annotated

import typer

from driftline.cli.options import AsJson, on_versions
from driftline.cli.version_options import REFERENCE, print_json, progress, reading
from driftline.config import Settings
from driftline.errors import InputError
from driftline.versions.drawing import Node, dot
from driftline.versions.wording import as_dict, log_lines


@on_versions
def log(
    settings: Settings,
    ref: Annotated[
        str | None, typer.Argument(metavar="[REF]", help=f"Only what this goes back to: {REFERENCE}.")
    ] = None,
    limit: Annotated[int | None, typer.Option("-n", "--limit", min=1, help="At most so many.")] = None,
    as_dot: Annotated[bool, typer.Option("--dot", help="Print a graph for Graphviz.")] = False,
    as_json: AsJson = False,
) -> None:
    """Show versions as a graph, the newest first: names, labels, when, rows, what they added."""
    if as_dot and as_json:
        raise InputError("choose one of --dot and --json")
    from driftline.versions import ancestry, labels_of, read_all, resolve, weigh

    repository = reading(settings)
    start = resolve(repository, ref).manifest.version if ref is not None else None
    with progress(as_json) as bars:
        task = bars.add_task("manifests", total=None)
        manifests = read_all(repository, lambda done, total: bars.update(task, completed=done, total=total))
    known = {each.version: each for each in manifests}
    shown = manifests if start is None else ancestry(manifests, start)
    shown = shown[:limit]
    weights = {each.version: weigh(each, known.get(each.base)) for each in shown}
    labels = labels_of(repository)
    nodes = [
        Node(each.version, each.parents, each.base, tuple(labels.get(each.version, ()))) for each in shown
    ]
    if as_json:
        print_json([as_dict(each, weights[each.version], labels.get(each.version, [])) for each in shown])
    elif as_dot:
        details = {
            name: f"{weight.rows:,} rows, {weight.changed:,} changed" for name, weight in weights.items()
        }
        typer.echo("\n".join(dot(nodes, details)))
    else:
        for line in log_lines(nodes, shown, weights):
            typer.echo(line)
