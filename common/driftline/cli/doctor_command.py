"""`driftline doctor`: look a deployment over, and say what to do."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import orjson
import typer

from driftline.cli.options import AsJson, ConfigFile, DataDir, Group, LogUrl, RedisUrl
from driftline.config import load_settings
from driftline.doctor.findings import Finding, Report, Severity
from driftline.doctor.roles import Role

_COLOURS = {Severity.OK: "green", Severity.WARN: "yellow", Severity.FAIL: "red"}


def doctor(
    role: Annotated[Role, typer.Option("--role", help="Whose rights to look at.")] = Role.SERVICE,
    table: Annotated[
        list[str] | None, typer.Option("--table", help="A table whose topics this user cannot list.")
    ] = None,
    as_json: AsJson = False,
    log_url: LogUrl = None,
    redis_url: RedisUrl = None,
    group: Group = None,
    data_dir: DataDir = None,
    config: ConfigFile = None,
) -> None:
    """Look at log, Redis, clocks, versions, settings and key; say what is wrong and what to do.

    Reads only. Status 0: nothing fails; 1: something fails; 2: something could not be checked.
    """
    flags: dict[str, object] = {
        "log_url": log_url,
        "redis_url": redis_url,
        "group": group,
        "data_dir": data_dir,
        "config": config,
    }
    from driftline.doctor.checks import Patient, examine

    loaded = load_settings(flags, cwd=Path.cwd(), environ=os.environ)
    report = asyncio.run(examine(Patient(loaded, role, tuple(table or ()))))
    if as_json:
        typer.echo(orjson.dumps(report.to_json(), option=orjson.OPT_INDENT_2).decode())
    else:
        for severity, line in lines(report):
            typer.echo(typer.style(severity.value.ljust(5), fg=_COLOURS[severity]) + line)
        typer.echo(summary(report))
    raise typer.Exit(report.exit_status)


def lines(report: Report) -> Iterator[tuple[Severity, str]]:
    """Yield each finding in words, with the way out on a line of its own."""
    for each in report.findings:
        yield each.severity, _line(each)


def _line(finding: Finding) -> str:
    told = f"{finding.area}: {finding.what}: {finding.found}"
    return f"{told}\n     -> {finding.remedy}" if finding.remedy else told


def summary(report: Report) -> str:
    """Return the last line."""
    count = {severity: sum(each.severity is severity for each in report.findings) for severity in Severity}
    told = f"{count[Severity.OK]} ok, {count[Severity.WARN]} to think about, {count[Severity.FAIL]} wrong"
    return f"{told}; not everything could be checked" if report.exit_status == 2 else told
