"""alibi-detect's online CVM detector on a series; run by the Python that has it.

    DRIFTLINE_BENCH_ALIBI=.venv-alibi/bin/python make bench-alarm

alibi-detect wants numpy 1, so it lives in a virtual environment of its own (`pip install alibi-detect`) and
nothing of driftline is imported here. Reads from stdin as JSON: the reference, the expected run time, and
series that each go on from there; prints the places of each series' alarms. The detector is begun anew
after each alarm.
"""

import json
import sys
import warnings


def main() -> None:
    """Answer one question."""
    warnings.filterwarnings("ignore")
    import numpy as np
    from alibi_detect.cd import CVMDriftOnline

    asked = json.load(sys.stdin)
    # A quantile at 1 - 1/ert is not estimated from fewer bootstraps.
    bootstraps = max(2_000, 4 * int(asked["ert"]))
    np.random.seed(1)
    detector = CVMDriftOnline(
        np.array(asked["reference"], np.float32),
        ert=asked["ert"],
        window_sizes=[20],
        n_bootstraps=bootstraps,
        verbose=False,
    )
    answer = []
    for series in asked["series"]:
        detector.reset_state()
        alarms = []
        for place, value in enumerate(series):
            if detector.predict(np.array([value], np.float32))["data"]["is_drift"]:
                alarms.append(place)
                detector.reset_state()
        answer.append(alarms)
    print(json.dumps(answer))


if __name__ == "__main__":
    main()
