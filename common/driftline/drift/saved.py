"""A judge's state as bytes, so that a monitor goes on where it was.

Invariant: what was saved is loaded to the same bits, or refused; nothing in the bytes is executed.
"""

from __future__ import annotations

import io
import json
import zipfile

import numpy as np
from numpy.typing import NDArray

from driftline.drift.calibration import Calibration, Settled
from driftline.drift.judge import JudgeState
from driftline.drift.scores import Scores
from driftline.errors import InputError

_FORMAT = 1
_SCORES = ("nodes", "steps", "losses", "moved", "absolute", "decile", "bin")


def dump_state(state: JudgeState) -> bytes:
    """Return a state as bytes: an npz archive of plain arrays."""
    arrays: dict[str, NDArray[np.generic]] = {
        "calibration": np.frombuffer(state.calibration.dump(), np.uint8),
        "r": state.r,
        "heights": state.heights,
        "onsets": state.onsets,
        "cusums": state.cusums,
    }
    if state.standing is not None:
        arrays["standing"] = state.standing
    for number, settled in enumerate(state.pending):
        for name in _SCORES:
            arrays[f"{number}_{name}"] = getattr(settled.scores, name)
        if settled.statistics is not None:
            arrays[f"{number}_statistics"] = settled.statistics
    about = {
        "format": _FORMAT,
        "tick": state.tick,
        "cool": state.cool,
        "pending": [[each.tick, each.rows] for each in state.pending],
    }
    arrays["about"] = np.frombuffer(json.dumps(about).encode(), np.uint8)
    out = io.BytesIO()
    np.savez(out, **arrays)  # type: ignore[arg-type]
    return out.getvalue()


def load_state(data: bytes) -> JudgeState:
    """Return what `dump_state` gave. Raises InputError for anything else."""
    try:
        with np.load(io.BytesIO(data), allow_pickle=False) as archive:
            found = {name: archive[name] for name in archive.files}
        about = json.loads(found["about"].tobytes())
        if about["format"] != _FORMAT:
            raise InputError(f"a judge's state of format {about['format']}: this release reads {_FORMAT}")
        pending = tuple(
            Settled(
                int(tick),
                int(rows),
                found.get(f"{number}_statistics"),
                Scores(*(found[f"{number}_{name}"] for name in _SCORES)),
            )
            for number, (tick, rows) in enumerate(about["pending"])
        )
        return JudgeState(
            Calibration.load(found["calibration"].tobytes()),
            pending,
            about["tick"],
            found.get("standing"),
            found["r"],
            found["heights"],
            found["onsets"],
            found["cusums"],
            int(about["cool"]),
        )
    except (KeyError, ValueError, TypeError, OSError, EOFError, zipfile.BadZipFile) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"not a judge's state: {error!r}; calibrate anew") from error
