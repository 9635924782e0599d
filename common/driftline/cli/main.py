"""The command `driftline`.

Invariant: a mistake of the user ends with one clear line on standard error and
status 2, something that may pass with 3, a state a person must look at with 4;
never with a traceback.
"""

from __future__ import annotations

import sys
from importlib.metadata import version
from typing import Annotated

import typer

from driftline.cli import config_command
from driftline.cli.audit_command import audit
from driftline.cli.backups_command import backups
from driftline.cli.branch_command import app as branch_app
from driftline.cli.demo_command import demo
from driftline.cli.deploy_command import deploy, undeploy
from driftline.cli.diff_command import diff
from driftline.cli.dlq_command import app as dlq_app
from driftline.cli.doctor_command import doctor
from driftline.cli.drift_command import app as drift_app
from driftline.cli.fsck_command import fsck
from driftline.cli.gc_command import gc
from driftline.cli.log_command import log
from driftline.cli.options import NEGATIVE_NUMBERS
from driftline.cli.pin_command import pin, pins, unpin
from driftline.cli.relog_command import relog
from driftline.cli.report_command import report
from driftline.cli.restore_command import checkout, rollback
from driftline.cli.rows_command import blame, explain
from driftline.cli.shards_command import app as shards_app
from driftline.cli.show_command import show
from driftline.cli.tables_command import app as tables_app
from driftline.cli.tag_command import app as tag_app
from driftline.cli.up_command import up
from driftline.cli.where_command import where
from driftline.cli.worker_command import app as worker_app
from driftline.errors import DriftlineError, RetryError, StateError

app = typer.Typer(
    name="driftline",
    help="A streaming embedding store with version control.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
app.command()(demo)
app.command()(up)
app.add_typer(worker_app, name="worker")
tables_app.command()(relog)
app.add_typer(tables_app, name="table")
app.add_typer(shards_app, name="shards")
app.command(context_settings=NEGATIVE_NUMBERS)(where)
app.command()(audit)
app.command()(doctor)
app.add_typer(dlq_app, name="dlq")
app.add_typer(drift_app, name="drift")
app.add_typer(config_command.app, name="config")
app.command()(log)
app.command()(show)
app.command()(diff)
app.command()(report)
app.add_typer(branch_app, name="branch")
app.add_typer(tag_app, name="tag")
app.command()(pin)
app.command()(unpin)
app.command()(pins)
app.command(context_settings=NEGATIVE_NUMBERS)(blame)
app.command(context_settings=NEGATIVE_NUMBERS)(explain)
app.command()(checkout)
app.command()(rollback)
app.command()(deploy)
app.command()(undeploy)
app.command()(backups)
app.command()(gc)
app.command()(fsck)

INTERRUPTED = 130


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"driftline {version('driftline')}")
        raise typer.Exit


@app.callback()
def driftline(
    show_version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """A streaming embedding store with version control."""


def main() -> None:
    """Run the command line; the exit status tells what kind of error ended it."""
    try:
        app()
    except DriftlineError as error:
        typer.echo(f"driftline: {error}", err=True)
        sys.exit(3 if isinstance(error, RetryError) else 4 if isinstance(error, StateError) else 2)
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)


if __name__ == "__main__":
    main()
