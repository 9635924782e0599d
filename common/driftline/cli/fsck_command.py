"""`driftline fsck`: is every byte of every version what was written?"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from typing import TYPE_CHECKING

import typer

from driftline.cli.options import AsJson, on_versions
from driftline.cli.version_options import print_json, progress, reading
from driftline.config import Settings

if TYPE_CHECKING:
    from driftline.versions import Finding


@on_versions
def fsck(
    settings: Settings,
    as_json: AsJson = False,
) -> None:
    """Read every object of every version, and name what is missing, damaged or does not add up.

    Status 0: all is well; 1: something is not.
    """
    from driftline.versions import fsck as check

    repository = reading(settings)
    versions = repository.listing().names()
    with progress(as_json) as bars:
        task = bars.add_task("versions", total=len(versions))

        def on_version(version: str) -> None:
            bars.update(task, description=version, advance=1)

        findings = check(repository, on_version)
    if as_json:
        print_json(
            {"ok": not findings, "versions": len(versions), "findings": [asdict(each) for each in findings]}
        )
    else:
        for line in lines(findings, len(versions)):
            typer.echo(line)
    raise typer.Exit(1 if findings else 0)


def lines(findings: list[Finding], versions: int) -> Iterator[str]:
    """Yield the findings in words, and what they come to."""
    for each in findings:
        told = ": ".join(filter(None, (each.code, each.object, each.message)))
        yield told + (f": expected {each.expected}, found {each.found}" if each.expected else "")
    yield f"{versions} versions, " + (f"{len(findings)} findings" if findings else "all is well")
