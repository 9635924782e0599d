"""`driftline demo`: train a two-table retrieval model through the whole pipeline, and check it."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from driftline.errors import InputError

DEFAULT_EVENTS = 30_000


def demo(
    synthetic: Annotated[
        bool, typer.Option("--synthetic", help="Planted, drifting clusters (default).")
    ] = False,
    git: Annotated[Path | None, typer.Option("--git", help="A repository: author edits file.")] = None,
    csv: Annotated[Path | None, typer.Option("--csv", help="timestamp,user,item; may be gzipped.")] = None,
    events: Annotated[int, typer.Option(min=64, help="Events to train on, at most.")] = DEFAULT_EVENTS,
    dims: Annotated[int, typer.Option(min=2, help="Dimensions of a row.")] = 32,
    seed: Annotated[int, typer.Option(help="Seed of stream and model.")] = 0,
    shards: Annotated[int, typer.Option(min=1, help="Shards per table.")] = 4,
    kafka: Annotated[
        str | None, typer.Option("--kafka", help="kafka://host:port instead of the local log.")
    ] = None,
    redis: Annotated[str | None, typer.Option("--redis", help="redis://… instead of one of its own.")] = None,
    data_dir: Annotated[
        Path | None, typer.Option(help="Keep the data here instead of a temporary directory.")
    ] = None,
    no_fault: Annotated[bool, typer.Option("--no-fault", help="Plant no faults to be found.")] = False,
    no_wait: Annotated[bool, typer.Option("--no-wait", help="End at once when done.")] = False,
    json_file: Annotated[Path | None, typer.Option("--json", help="Write the summary here.")] = None,
) -> None:
    """Train online through log, aggregator and Redis; then audit every row.

    Needs nothing but this package. Shows recall@20 beside popularity and recency, rows per
    second, and how long a pushed gradient takes until it can be read. Once the drift monitor judges,
    some rows are pushed astray, then a worker trains a cluster backwards: both are undone by themselves.
    """
    if sum((synthetic, git is not None, csv is not None)) > 1:
        raise InputError("choose one of --synthetic, --git and --csv")
    if json_file is not None and not json_file.absolute().parent.is_dir():
        raise InputError(f"--json {str(json_file)!r}: its directory does not exist")
    # before numpy loads: two threads of arithmetic on rows this small burn twice the CPU for no speed
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    from driftline.demo.pipeline import Demo, run_demo

    status = run_demo(
        Demo(
            git, csv, events, dims, seed, shards, kafka, redis, data_dir, not no_wait, json_file, not no_fault
        )
    )
    raise typer.Exit(status)
