"""What a restore of the live tables means to a shard that the versioner follows.

Invariant: behind a restore that took effect the shard stands on the rows of the version named,
and nothing older than the restore is taken in any more; one that did not changes nothing.
"""

from __future__ import annotations

from dataclasses import replace

from driftline_services.versioner.shards import CHECKOUT, Cut, Line, ShardState, is_relog, took_effect
from driftline_services.versioner.works import Works


def put_back(works: Works, state: ShardState, cut: Cut) -> None:
    """Put a shard back to the version that `cut` names. Blocking.

    Raises UnknownVersionError if it is gone, and whatever the store raises. May be repeated.
    """
    if is_relog(cut):  # the line stays: only this shard's rows are another version's
        name = str(cut.body["version"])
        known = works.version(name).tables.get(state.table)
        state.relogged(cut, known.parts[state.shard] if known is not None else None, name)
        return
    if state.last_op >= cut.op and not took_effect(cut):
        return
    version = works.version(str(cut.body["version"]))
    line = _line(works, cut, str(cut.body["version"]), version.name.scenario)
    table = version.tables.get(state.table)
    if table is None:  # born later: its rows stay, and its line is that of the group
        state.line = replace(line, base=state.line.base)
    elif took_effect(cut):
        state.restored(cut, table.parts[state.shard], line)


def _line(works: Works, cut: Cut, version: str, scenario: str) -> Line:
    """Return the line that goes on: a roll-back stays on its own, a checkout takes the version's scenario."""
    if cut.kind != CHECKOUT:
        return Line(works.branch(cut), works.scenario(cut), version)
    asked = cut.body.get("scenario")
    return Line(works.branch(cut), asked if isinstance(asked, str) and asked else scenario, version)
