"""The simulation of moves finds bugs that are planted into the protocol."""

from __future__ import annotations

import inspect
import textwrap
from types import ModuleType

import pytest

from driftline.errors import DriftlineError
from driftline.rows import move, placement, shard_store
from tests.simulation.moves import run_seeds

SEEDS = 120

BUGS = {
    "what is carried over is not what was left": (
        shard_store,
        "ShardStore.leave",
        "self._check_fence([left.get(name) for name in FENCE], after)",
        "pass",
    ),
    "a target that has been further is overwritten": (
        move,
        "Switch._activate",
        'if following is not None and int(at or b"0") >= place:',
        "if False:",
    ),
    "drafts are taken as they are": (
        move,
        "Switch._activate",
        "if (values, state) != _rows_of(left):",
        "if False:",
    ),
    "the older of two lives counts": (placement, "View.live", "return max(", "return min("),
}


@pytest.mark.parametrize("bug", BUGS)
def test_the_simulation_finds(bug: str, monkeypatch: pytest.MonkeyPatch) -> None:
    module, name, right, wrong = BUGS[bug]
    plant(monkeypatch, module, name, right, wrong)
    with pytest.raises((AssertionError, DriftlineError)):  # whichever check finds it
        run_seeds(range(SEEDS))


def plant(monkeypatch: pytest.MonkeyPatch, module: ModuleType, path: str, right: str, wrong: str) -> None:
    """Have a function of `module` read `wrong` where it reads `right`."""
    owner, _, name = path.partition(".")
    holder = getattr(module, owner)
    found = holder.__dict__[name]
    function = found.fget if isinstance(found, property) else found
    assert callable(function)
    source = textwrap.dedent(inspect.getsource(function))
    assert right in source, f"{path} does not read {right!r} any more"
    scope: dict[str, object] = {}
    exec(compile(source.replace(right, wrong), path, "exec"), vars(module), scope)  # noqa: S102
    monkeypatch.setattr(holder, name, scope[name])
