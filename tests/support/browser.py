"""The system's Chromium, without a window and without a network of its own."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager

from playwright.sync_api import Browser, sync_playwright

_NAMES = ("chromium", "chromium-browser", "google-chrome")
_FLAGS = ("--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-dev-shm-usage")


def program() -> str:
    """Return the browser's path. Fails where there is none: its tests are never left out by themselves."""
    found = next(filter(None, map(shutil.which, _NAMES)), None)
    assert found is not None, f"none of {', '.join(_NAMES)} is on PATH: deploy/tools/system.sh installs it"
    return found


@contextmanager
def chromium() -> Iterator[Browser]:
    """Run the browser while inside. Its event loop occupies the thread: keep no async test inside."""
    with sync_playwright() as playwright:
        running = playwright.chromium.launch(executable_path=program(), headless=True, args=list(_FLAGS))
        try:
            yield running
        finally:
            running.close()
