"""Where a demo's events come from: `synthetic`, `git` or `csv`.

Invariant: each source returns `Events`, oldest first, or raises an error that names
the input and the way out.
"""

from __future__ import annotations

from driftline.demo.csv_source import read_csv as csv
from driftline.demo.events import Events
from driftline.demo.git_source import read_git as git
from driftline.demo.synthetic import Synthetic, synthetic

__all__ = ["Events", "Synthetic", "csv", "git", "synthetic"]
