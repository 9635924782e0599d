"""alibi-detect's online CVM detector on a series; run by the Python that has it.

    BENCH_ALIBI=.venv-alibi/bin/python make bench-alarm

alibi-detect wants numpy 1, so it lives in a virtual environment of its own (`pip install alibi-detect`) and
nothing of driftline is imported here. Reads from stdin as JSON the expected run
time and a list of questions, each a reference and series that go on from there; prints for each question the
places of each series' alarms. The detector is begun anew after each alarm.
"""

from __future__ import annotations

import json
import sys
import warnings
from typing import Any, Protocol


class Online(Protocol):
    """What is used of alibi-detect's online detectors."""

    def predict(self, x: Any) -> dict[str, Any]: ...
    def reset_state(self) -> None: ...


def main() -> None:
    """Answer the questions."""
    warnings.filterwarnings("ignore")
    import numpy as np
    from alibi_detect.cd import CVMDriftOnline

    asked = json.load(sys.stdin)
    # A quantile at 1 - 1/ert is not estimated from fewer bootstraps.
    bootstraps = max(2_000, 4 * int(asked["ert"]))
    np.random.seed(1)
    answers = []
    for question in asked["questions"]:
        detector = CVMDriftOnline(
            np.array(question["reference"], np.float32),
            ert=asked["ert"],
            window_sizes=[20],
            n_bootstraps=bootstraps,
            verbose=False,
        )
        answers.append([alarms(detector, series) for series in question["series"]])
    print(json.dumps(answers))


def alarms(detector: Online, series: list[float]) -> list[int]:
    """Return the places of the alarms in one series."""
    import numpy as np

    detector.reset_state()
    found: list[int] = []
    for place, value in enumerate(series):
        if detector.predict(np.array([value], np.float32))["data"]["is_drift"]:
            found.append(place)
            detector.reset_state()
    return found


if __name__ == "__main__":
    main()
