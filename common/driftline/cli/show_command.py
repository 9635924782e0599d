"""`driftline show REF`: all that is known of one version."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

import orjson
import typer

from driftline.cli.options import AsJson, on_versions
from driftline.cli.version_options import LatestRef, print_json, reading, tables_of
from driftline.config import Settings
from driftline.errors import UnknownVersionError
from driftline.versions.wording import as_dict, columns, moment, origin, size

if TYPE_CHECKING:
    from driftline.versions import Manifest, Repository, Weight


@on_versions
def show(
    settings: Settings,
    ref: LatestRef = "latest",
    as_json: AsJson = False,
) -> None:
    """Show a version: where it comes from, its tables, figures, attachments, and where its shards stood."""
    from driftline.versions import labels_of, resolve, weigh

    repository = reading(settings)
    found = resolve(repository, ref)
    manifest = found.manifest
    weight = weigh(manifest, base_of(repository, manifest))
    labels = labels_of(repository).get(manifest.version, [])
    tables = tables_of(found)
    if as_json:
        print_json({**as_dict(manifest, weight, labels), "shards": shards(manifest, tables)})
        return
    for line in lines(manifest, weight, labels, tables):
        typer.echo(line)


def base_of(repository: Repository, manifest: Manifest) -> Manifest | None:
    """Return the version a version was laid on, None if it has none or it was removed."""
    try:
        return repository.manifest(manifest.base) if manifest.base else None
    except UnknownVersionError:
        return None


def shards(manifest: Manifest, tables: Sequence[str]) -> Mapping[str, list[Mapping[str, object]]]:
    """Return for each table where its shards stood at the barrier."""
    return {
        name: [
            {
                "shard": shard,
                "rows": part.rows,
                "changed": part.changed,
                "segments": len(part.segments),
                "generation": part.place.number("gen"),
                "log": [part.begin, part.place.number("next")],
            }
            for shard, part in enumerate(manifest.table(name).parts)
        ]
        for name in tables
    }


def lines(manifest: Manifest, weight: Weight, labels: Sequence[str], tables: Sequence[str]) -> Iterator[str]:
    """Yield what is known of a version."""
    yield f"version    {manifest.version}" + (f"  ({', '.join(labels)})" if labels else "")
    yield f"parents    {', '.join(manifest.parents) or 'none: the first of its line'}"
    if origin(manifest):
        yield f"made by    {origin(manifest)}"
    yield f"branch     {manifest.branch}"
    yield f"scenario   {manifest.name.scenario}"
    yield f"created    {moment(manifest.created)}"
    yield f"stored     {weight.changed:,} of {weight.rows:,} rows, {size(weight.bytes)}"
    for name, value in manifest.metadata.items():
        yield f"metadata   {name}: {value if isinstance(value, str) else orjson.dumps(value).decode()}"
    for name, figure in manifest.figures.items():
        yield f"figure     {name}: {figure:.6g}"
    for name, value in manifest.verdict.items():
        yield f"verdict    {name}: {value if isinstance(value, str) else orjson.dumps(value).decode()}"
    for name, each in manifest.attachments.items():
        yield f"attached   {name}: {size(each.size)}, blake2b {each.digest}"
    cells: list[Sequence[object]] = [("table", "dim", "shard", "rows", "changed", "segments", "log")]
    for name in tables:
        table = manifest.table(name)
        for shard, part in enumerate(table.parts):
            log = f"[{part.begin}, {part.place.number('next')})"
            cells.append((name, table.dim, shard, part.rows, part.changed, len(part.segments), log))
    yield ""
    yield from columns(cells)
