"""`python -m driftline_services.drift_monitor`: one monitor, configured by environment and driftline.toml."""

from __future__ import annotations

import logging
import os
import sys
from pathlib import Path

from driftline.config import load_settings
from driftline.errors import DriftlineError
from driftline_services.chassis import run_worker
from driftline_services.drift_monitor.app import monitor_app


def main() -> int:
    """Run until SIGINT or SIGTERM; return the exit status."""
    try:
        settings = load_settings({}, cwd=Path.cwd(), environ=os.environ).settings
    except DriftlineError as error:
        print(f"driftline drift monitor: {error}", file=sys.stderr)
        return 2
    level = logging.getLevelNamesMapping()[settings.log_level.upper()]
    return run_worker(lambda: monitor_app(settings), log_level=level)


if __name__ == "__main__":
    sys.exit(main())
