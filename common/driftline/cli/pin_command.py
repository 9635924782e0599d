"""`driftline pin`, `unpin`, `pins`: a team needs a version until some time."""

from __future__ import annotations

from typing import Annotated

import typer

from driftline.cli.options import AsJson, ConfigFile, DataDir, Group
from driftline.cli.version_options import Ref, StoreUrl, print_json, reading, store_settings
from driftline.versions.wording import columns, moment, seconds_in

Team = Annotated[str, typer.Option("--team", help="Who needs it.")]


def pin(
    ref: Ref,
    team: Team,
    span: Annotated[str, typer.Option("--for", help="How long: 90s, 15m, 2h, 7d, 4w.")] = "30d",
    as_json: AsJson = False,
    store_url: StoreUrl = None,
    group: Group = None,
    data_dir: DataDir = None,
    config: ConfigFile = None,
) -> None:
    """Keep a version for a team for some time; again to prolong it."""
    from driftline.versions import pin as hold
    from driftline.versions import resolve

    seconds = seconds_in(span)
    repository = reading(store_settings(store_url, group, data_dir, config))
    version = resolve(repository, ref).manifest.version
    until = repository.now() + seconds
    hold(repository, team, version, until)
    if as_json:
        print_json({"team": team, "version": version, "until": moment(until)})
        return
    typer.echo(f"{version} is kept for {team} until {moment(until)}")


def unpin(
    ref: Ref,
    team: Team,
    as_json: AsJson = False,
    store_url: StoreUrl = None,
    group: Group = None,
    data_dir: DataDir = None,
    config: ConfigFile = None,
) -> None:
    """Give a pin up."""
    from driftline.versions import resolve
    from driftline.versions import unpin as give_up

    repository = reading(store_settings(store_url, group, data_dir, config))
    version = resolve(repository, ref).manifest.version
    give_up(repository, team, version)
    if as_json:
        print_json({"team": team, "version": version, "removed": True})
        return
    typer.echo(f"{version} is no longer kept for {team}")


def pins(
    as_json: AsJson = False,
    store_url: StoreUrl = None,
    group: Group = None,
    data_dir: DataDir = None,
    config: ConfigFile = None,
) -> None:
    """List the pins that have not run out."""
    from driftline.versions import pins as held

    found = held(reading(store_settings(store_url, group, data_dir, config)))
    if as_json:
        print_json(
            [{"team": each.team, "version": each.version, "until": moment(each.until)} for each in found]
        )
        return
    for line in columns([(each.team, each.version, f"until {moment(each.until)}") for each in found]):
        typer.echo(line)
