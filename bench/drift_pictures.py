"""Draws the pictures of docs/explanation/drift.md from the reports: `python -m bench.drift_pictures`.

Invariant: nothing is drawn that does not stand in docs/bench-drift.json or docs/bench-alarm.json; the
same reports give the same files.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from math import floor, log10

from bench.harness import Report
from bench.tables import ROOT

IMAGES = ROOT / "docs" / "images"
_WIDE, _HIGH = 720, 300
_LEFT, _RIGHT, _TOP, _BOTTOM = 64, 200, 34, 44
_COLOURS = ("#3a8fd0", "#d1495b", "#2e8b57", "#8a5fb0", "#b8860b", "#808080")
_STYLE = (
    "<style>text{fill:#333}.grid{stroke:#ddd}"
    "@media (prefers-color-scheme: dark){text{fill:#ddd}.grid{stroke:#444}}</style>"
)

Points = Sequence[tuple[float, float]]


@dataclass(slots=True)
class Chart:
    """Lines over one axis each; a logarithmic y axis where asked for by `log`."""

    title: str
    across: str
    up: str
    low: float
    high: float
    first: float
    last: float
    log: bool = False
    parts: list[str] = field(default_factory=list)
    legend: list[tuple[str, str]] = field(default_factory=list)

    def x(self, value: float) -> float:
        """Return where a value stands on the x axis."""
        return _LEFT + (value - self.first) / (self.last - self.first) * (_WIDE - _LEFT - _RIGHT)

    def y(self, value: float) -> float:
        """Return where a value stands on the y axis; values outside stand at its ends."""
        value = min(max(value, self.low), self.high)
        share = (value - self.low) / (self.high - self.low)
        if self.log:
            share = log10(value / self.low) / log10(self.high / self.low)
        return _TOP + (1 - share) * (_HIGH - _TOP - _BOTTOM)

    def line(self, points: Points, label: str, colour: str, dashes: str = "") -> None:
        """Draw a line."""
        path = " ".join(f"{self.x(a):.1f},{self.y(b):.1f}" for a, b in points)
        self.parts.append(
            f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="1.8"'
            + (f' stroke-dasharray="{dashes}"' if dashes else "")
            + "/>"
        )
        self.legend.append((label, colour))

    def bar(self, at: float, width: float, value: float, colour: str) -> None:
        """Draw a bar; one of nothing is a mark on the axis."""
        top, bottom = self.y(value), self.y(self.low)
        self.parts.append(
            f'<rect x="{self.x(at):.1f}" y="{min(top, bottom - 2):.1f}" fill="{colour}"'
            f' width="{self.x(at + width) - self.x(at):.1f}" height="{max(2.0, bottom - top):.1f}"/>'
        )

    def svg(self, up: Sequence[float], across: Sequence[tuple[float, str]]) -> str:
        """Return the picture with marks on both axes."""
        right = _WIDE - _RIGHT
        out = [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDE} {_HIGH}" font-family="sans-serif"'
            ' font-size="12">',
            f"<title>{self.title}</title>",
            _STYLE,
            f'<text x="{_LEFT}" y="18" font-size="13" font-weight="bold">{self.title}</text>',
        ]
        for mark in up:
            at = self.y(mark)
            out.append(f'<path d="M{_LEFT} {at:.1f}H{right}" class="grid"/>')
            out.append(f'<text x="{_LEFT - 6}" y="{at + 4:.1f}" text-anchor="end">{mark:g}</text>')
        for mark, label in across:
            out.append(f'<text x="{self.x(mark):.1f}" y="{_HIGH - 26}" text-anchor="middle">{label}</text>')
        out.append(
            f'<text x="{(_LEFT + right) / 2}" y="{_HIGH - 8}" text-anchor="middle">{self.across}</text>'
        )
        middle = (_TOP + _HIGH - _BOTTOM) / 2
        out.append(
            f'<text transform="translate(14 {middle}) rotate(-90)" text-anchor="middle">{self.up}</text>'
        )
        out += self.parts
        for place, (label, colour) in enumerate(self.legend):
            at = _TOP + 8 + 18 * place
            out.append(
                f'<path d="M{right + 12} {at - 4}h18" stroke="{colour}" stroke-width="3"/>'
                f'<text x="{right + 36}" y="{at}">{label}</text>'
            )
        return "\n".join([*out, "</svg>"]) + "\n"


def recall(report: Report) -> str:
    """Draw recall over ticks of the runs of a thousand ticks, and of the M-order rule alone."""
    long = {
        name.removesuffix(".recall_random"): figure
        for name, figure in report.figures.items()
        if name.endswith("g2.recall_random") and len(figure.values) >= 20
    }
    chart = Chart(
        "Recall of the neighbour lists while rows move (50,000 rows)", "tick", "recall", 0.98, 1.0, 0, 1000
    )
    names = {"random": "random rows", "changed": "just changed", "affected": "affected, unchanged"}
    for colour, (group, label) in zip(_COLOURS, names.items(), strict=False):
        # The worst of all runs at each check.
        runs = [
            list(zip(_checked(report, name), report.figures[f"{name}.recall_{group}"].values, strict=False))
            for name in long
            if f"{name}.recall_{group}" in report.figures
        ]
        worst = [(checks[0][0], min(value for _, value in checks)) for checks in zip(*runs, strict=False)]
        chart.line(worst, f"{label}, worst run", colour)
    chart.line([(0, 0.995), (1000, 0.995)], "target", "#999", "5 4")
    return chart.svg([0.98, 0.985, 0.99, 0.995, 1.0], [(at, str(at)) for at in range(0, 1001, 200)])


def statistic(report: Report) -> str:
    """Draw the detector's statistic around a slow poisoning."""
    around = report.settings["alarm"]["around_fault"]
    assert isinstance(around, list)
    before, _ = around
    chart = Chart(
        "The alarm's statistic around slow poisoning (ticks of 5 minutes)",
        "ticks since the fault began",
        "R",
        0.1,
        1e5,
        -before,
        25,
        log=True,
    )
    level = 0.0
    for colour, strength in zip(_COLOURS, ("2", "4", "8"), strict=False):
        figure = report.figures[f"alarm.trace.5min.slow_poison.{strength}x"]
        level = float(figure.unit.rpartition(" ")[2])
        chart.line(
            [(place - before, value) for place, value in enumerate(figure.values)],
            f"{strength} × the usual movement",
            colour,
        )
    chart.line([(-before, level), (25, level)], "alarm", "#999", "5 4")
    return chart.svg([10**power for power in range(-1, 6)], [(at, str(at)) for at in range(-before, 26, 10)])


def false_alarms(report: Report) -> str:
    """Draw the worst regime's false alarms of each detector by length of a tick."""
    promise = report.ratios["promised_per_day"]
    found: dict[str, dict[str, float]] = {}
    for minutes in ("1min", "5min", "15min", "60min"):
        for name, label in DETECTORS.items():
            figure = report.figures.get(f"alarm.{minutes}.{name}")
            if figure is not None:
                found.setdefault(label, {})[minutes] = figure.high
    high = max(value for each in found.values() for value in each.values())
    top = 10 ** (floor(log10(max(high, 1))) + 1)
    chart = Chart(
        "False alarms a day in the worst healthy regime",
        "length of a tick",
        "a day",
        0.01,
        top,
        0,
        4,
        log=True,
    )
    lengths = ("1min", "5min", "15min", "60min")
    for place, (label, values) in enumerate(found.items()):
        for at, minutes in enumerate(lengths):
            if minutes in values:
                chart.bar(at + 0.1 + 0.15 * place, 0.13, values[minutes], _COLOURS[place])
        chart.legend.append((label, _COLOURS[place]))
    chart.line([(0, promise), (4, promise)], "promise", "#999", "5 4")
    marks = [10.0**power for power in range(-2, round(log10(top)) + 1)]
    return chart.svg(marks, [(at + 0.5, label) for at, label in enumerate(lengths)])


DETECTORS = {
    "driftline": "driftline",
    "three_sigma": "mean + 3σ",
    "adwin": "ADWIN (river)",
    "page_hinkley": "Page–Hinkley (river)",
    "alibi_cvm": "CVM (alibi-detect)",
}


def _checked(report: Report, name: str) -> list[int]:
    settings = report.settings["drift"][name]
    assert isinstance(settings, dict)
    return list(settings["checked"])


def drawn() -> dict[str, str]:
    """Return the pictures by file name, those whose report is there."""
    pictures = {}
    drift, alarm = ROOT / "docs" / "bench-drift.json", ROOT / "docs" / "bench-alarm.json"
    if drift.exists():
        pictures["drift-recall.svg"] = recall(Report.read(drift))
    if alarm.exists():
        pictures["alarm-statistic.svg"] = statistic(Report.read(alarm))
        pictures["alarm-false-alarms.svg"] = false_alarms(Report.read(alarm))
    return pictures


if __name__ == "__main__":
    for name, content in drawn().items():
        (IMAGES / name).write_text(content)
