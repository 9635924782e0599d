"""`driftline drift`: the drift monitor's verdicts and alarms; and its settings tried on recorded data."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import orjson
import typer

from driftline.cli.drift_alarms import approve, reject, status, watch
from driftline.cli.options import AsJson, ConfigFile, DataDir, Group, LogUrl, settings_of
from driftline.config import Settings, kafka_security
from driftline.errors import ConfigError, InputError

if TYPE_CHECKING:
    from driftline.drift import JudgeSettings, JudgeState, Verdict
    from driftline.graph import GraphSettings

app = typer.Typer(help="Verdicts and alarms of the drift monitor.", no_args_is_help=True)


@app.callback()
def drift() -> None:
    """See what the drift monitors say, and answer; or try their settings on recorded data."""


for _command in (status, watch, approve, reject):
    app.command()(_command)


@app.command()
def replay(
    table: str,
    tick: Annotated[float, typer.Option(help="Seconds of log time in a tick.")] = 60.0,
    promise: Annotated[float, typer.Option(help="False actions per day that are tolerated.")] = 1 / 7,
    few_nodes: Annotated[int, typer.Option(help="More deviating nodes than this take the table back.")] = 20,
    neighbours: Annotated[int, typer.Option(help="K of the neighbour graph.")] = 10,
    metric: Annotated[str, typer.Option(help="cosine, l2 or inner_product.")] = "cosine",
    threshold: Annotated[
        list[str] | None, typer.Option(metavar="MEASURE=LIMIT", help="Fixed threshold; may be repeated.")
    ] = None,
    load: Annotated[Path | None, typer.Option(help="Begin with this calibration.")] = None,
    freeze: Annotated[bool, typer.Option("--freeze", help="Learn nothing more.")] = False,
    save: Annotated[Path | None, typer.Option(help="Write the calibration here at the end.")] = None,
    as_json: AsJson = False,
    log_url: LogUrl = None,
    group: Group = None,
    data_dir: DataDir = None,
    config: ConfigFile = None,
) -> None:
    """Judge what the updates log of a table holds: every verdict but `ok`, and a summary.

    Reads only. Nothing is rolled back, whatever the verdicts say.
    """
    from driftline.drift import Calibration, JudgeSettings, JudgeState, Thresholds
    from driftline.graph import GraphSettings, Metric

    if metric not in set(Metric):
        raise ConfigError(f"metric {metric!r}: one of {', '.join(Metric)}")
    if not tick > 0:
        raise ConfigError(f"tick={tick}: must be more than 0 seconds")
    judged = JudgeSettings(
        false_actions_per_day=promise,
        ticks_per_day=86_400 / tick,
        few_nodes=few_nodes,
        thresholds=Thresholds(_limits(threshold or [])),
    )
    calibration = Calibration() if load is None else Calibration.load(_read(load))
    state = JudgeState(calibration.freeze() if freeze else calibration)
    told: list[Verdict] = []

    def tell(verdict: Verdict) -> None:
        told.append(verdict)
        if not as_json and verdict.standing.value not in ("ok", "calibrating"):
            typer.echo(_line(verdict))

    settings = settings_of(log_url=log_url, group=group, data_dir=data_dir, config=config)
    graph = GraphSettings(neighbours=neighbours, metric=Metric(metric))
    state = asyncio.run(_replay(settings, table, tick, graph, judged, state, tell))
    if save is not None:
        save.write_bytes(state.calibration.dump())
    counts = Counter(verdict.standing.value for verdict in told)
    if as_json:
        answer = {"table": table, "standings": counts, "verdicts": [verdict.to_json() for verdict in told]}
        typer.echo(orjson.dumps(answer, option=orjson.OPT_INDENT_2).decode())
        return
    summary = ", ".join(f"{count} {standing}" for standing, count in counts.most_common())
    typer.echo(f"{table}: {len(told)} ticks of {tick:g} s: {summary or 'nothing to judge'}")


async def _replay(
    settings: Settings,
    table: str,
    seconds: float,
    graph: GraphSettings,
    judged: JudgeSettings,
    state: JudgeState,
    tell: Callable[[Verdict], None],
) -> JudgeState:
    from driftline.drift import Watch
    from driftline.drift.recorded import recorded_ticks
    from driftline.log import open_log

    watch = Watch(graph, judged, state)
    try:
        async with open_log(settings.log_url, kafka_security(settings)) as log:
            async for change in recorded_ticks(log, table, seconds):
                found = watch.step(change)
                if found is not None:
                    tell(found.verdict)
    finally:
        watch.graph.close()
    return watch.state


def _limits(given: list[str]) -> dict[str, float]:
    limits = {}
    for each in given:
        name, _, value = each.partition("=")
        try:
            limits[name] = float(value)
        except ValueError:
            raise ConfigError(f"threshold {each!r}: write MEASURE=LIMIT, as in jaccard=0.3") from None
    return limits


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise InputError(f"calibration {path}: {error.strerror or error}") from error


def _line(verdict: Verdict) -> str:
    parts = [f"tick {verdict.tick}: {verdict.standing.value}"]
    if verdict.rule is not None:
        parts.append(f"by {verdict.rule.value}")
    if verdict.onset is not None:
        parts.append(f"since tick {verdict.onset}")
    if len(verdict.nodes):
        parts.append(
            f"{len(verdict.nodes)} nodes: {', '.join(str(node) for node in verdict.nodes[:5].tolist())}"
        )
    if verdict.evidence.why:
        parts.append(verdict.evidence.why)
    parts.append(f"→ {verdict.action.value}")
    return ", ".join(parts)
