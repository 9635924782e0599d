"""Is training going wrong? Measures of change, and an alarm whose false-alarm rate is known.

Invariant: pure; observations in, verdicts out. `judge` is the one that decides.
"""

from driftline.drift.calibration import Calibration
from driftline.drift.compare import Comparison, Side, compare
from driftline.drift.detectable import Detectable, least_effects
from driftline.drift.judge import JudgeState, accepted, judge, rolled_back
from driftline.drift.observation import Observation, observe
from driftline.drift.replay import Change, Collector, Judged, Watch, replay
from driftline.drift.saved import dump_state, load_state
from driftline.drift.settings import GuardSettings, JudgeSettings, Mode
from driftline.drift.thresholds import Thresholds
from driftline.drift.verdict import Action, Evidence, Rule, Standing, Verdict

__all__ = [
    "Action",
    "Calibration",
    "Change",
    "Collector",
    "Comparison",
    "Detectable",
    "Evidence",
    "GuardSettings",
    "JudgeSettings",
    "JudgeState",
    "Judged",
    "Mode",
    "Observation",
    "Rule",
    "Side",
    "Standing",
    "Thresholds",
    "Verdict",
    "Watch",
    "accepted",
    "compare",
    "dump_state",
    "judge",
    "least_effects",
    "load_state",
    "observe",
    "replay",
    "rolled_back",
]
