"""Frames in hex with the values they stand for, for those who write a client in another language.

Invariant: frames.json changes only with the format. `python -m tests.golden` writes
it anew; tests/unit/test_golden.py checks that it is what this release writes and reads.
"""

from tests.golden.frames import PATH, cases, render

__all__ = ["PATH", "cases", "render"]
