"""`python -m bench [QUESTION …] [--json FILE]`: run benchmarks and print figures and ratios."""

from __future__ import annotations

import argparse
from pathlib import Path

from bench import drain
from bench.harness import new_report

QUESTIONS = {"drain": drain.run}


def main() -> None:
    """Run the questions asked for, or all."""
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("questions", nargs="*", metavar="QUESTION", help=", ".join(QUESTIONS))
    parser.add_argument("--json", type=Path, help="write the report here")
    asked = parser.parse_args()
    report = new_report()
    for name in asked.questions or QUESTIONS:
        if name not in QUESTIONS:
            parser.error(f"unknown question {name!r}; known: {', '.join(QUESTIONS)}")
        QUESTIONS[name](report)
    for name, figure in report.figures.items():
        print(f"{name:32} {figure.median:>12,.0f} {figure.unit}  ({figure.low:,.0f} to {figure.high:,.0f})")
    for name, ratio in report.ratios.items():
        print(f"{name:32} {ratio:>12.2f}")
    if asked.json is not None:
        report.write(asked.json)


if __name__ == "__main__":
    main()
