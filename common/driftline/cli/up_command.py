"""`driftline up`: run the services of a deployment on this machine until Ctrl-C."""

from __future__ import annotations

import logging
import signal
import threading
from pathlib import Path
from typing import Annotated

import typer

from driftline.cli.options import ConfigFile, DataDir, Group, LogUrl, RedisUrl, settings_of
from driftline.config import redact_url
from driftline.stack.local import LocalStack

_LOOK = 0.2  # seconds between looks at whether the stack is still kept up


def up(
    data_dir: DataDir = None,
    log_url: LogUrl = None,
    redis_url: RedisUrl = None,
    group: Group = None,
    http_port: Annotated[int | None, typer.Option("--http-port", help="Metrics and health; 0: off.")] = None,
    config: ConfigFile = None,
) -> None:
    """Run Redis (unless one is given), an aggregator, a versioner and a drift monitor until Ctrl-C.

    A service that dies is started again. One that cannot run as it is set up, or dies again
    and again right after its start, ends everything with the reason: status 2 or 4.
    Clients in the same directory find them by themselves: `driftline.connect()`.
    """
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    if data_dir is not None and log_url is None:
        log_url = f"local://{Path(data_dir).absolute()}"
    settings = settings_of(
        log_url=log_url,
        redis_url=redis_url,
        group=group,
        data_dir=data_dir,
        config=config,
        http_port=http_port,
    )
    ended = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: ended.set())
    with LocalStack(settings) as stack:
        endpoints = stack.endpoints
        typer.echo(f"log    {endpoints.log_url}")
        typer.echo(f"redis  {redact_url(endpoints.redis_url)}")
        typer.echo(f"group  {endpoints.group}")
        if settings.http_port:
            typer.echo(f"health http://{settings.http_host}:{settings.http_port}/readyz")
        typer.echo(f"worker log {stack.worker_log}\nCtrl-C ends everything.")
        while not ended.wait(_LOOK) and stack.failure is None:
            pass
        typer.echo("ending …")
    if stack.failure is not None:
        raise stack.failure
