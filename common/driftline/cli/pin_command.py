"""`driftline pin`, `unpin`, `pins`: a team needs a version until some time."""

from __future__ import annotations

from typing import Annotated

import typer

from driftline.cli.options import AsJson, on_versions
from driftline.cli.version_options import Ref, print_json, reading
from driftline.config import Settings
from driftline.versions.wording import columns, moment, seconds_in

Team = Annotated[str, typer.Option("--team", help="Who needs it.")]


@on_versions
def pin(
    settings: Settings,
    ref: Ref,
    team: Team,
    span: Annotated[str, typer.Option("--for", help="How long: 90s, 15m, 2h, 7d, 4w.")] = "30d",
    as_json: AsJson = False,
) -> None:
    """Keep a version for a team for some time; again to prolong it."""
    from driftline.versions import pin as hold
    from driftline.versions import resolve

    seconds = seconds_in(span)
    repository = reading(settings)
    version = resolve(repository, ref).manifest.version
    until = repository.now() + seconds
    hold(repository, team, version, until)
    if as_json:
        print_json({"team": team, "version": version, "until": moment(until)})
        return
    typer.echo(f"{version} is kept for {team} until {moment(until)}")


@on_versions
def unpin(
    settings: Settings,
    ref: Ref,
    team: Team,
    as_json: AsJson = False,
) -> None:
    """Give a pin up."""
    from driftline.versions import resolve
    from driftline.versions import unpin as give_up

    repository = reading(settings)
    version = resolve(repository, ref).manifest.version
    give_up(repository, team, version)
    if as_json:
        print_json({"team": team, "version": version, "removed": True})
        return
    typer.echo(f"{version} is no longer kept for {team}")


@on_versions
def pins(
    settings: Settings,
    as_json: AsJson = False,
) -> None:
    """List the pins that have not run out."""
    from driftline.versions import pins as held

    found = held(reading(settings))
    if as_json:
        print_json(
            [{"team": each.team, "version": each.version, "until": moment(each.until)} for each in found]
        )
        return
    for line in columns([(each.team, each.version, f"until {moment(each.until)}") for each in found]):
        typer.echo(line)
