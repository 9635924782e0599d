"""The picture of docs/how-to/report.md, from a real run: `python -m bench.report_picture`.

Runs the demo in a temporary directory, writes its report with the planted clusters as domains, and
photographs it in Chromium; needs playwright and the browser.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections import Counter, defaultdict
from pathlib import Path

from driftline.demo import sources
from driftline.demo.synthetic import Synthetic

ROOT = Path(__file__).parents[1]
PICTURE = ROOT / "docs" / "images" / "report.png"
EVENTS, SEED = 30_000, 0
GENRES = (
    *("rock", "jazz", "folk", "pop", "techno", "blues", "soul", "metal", "classical", "latin"),
    *("reggae", "house", "punk", "ambient", "country", "gospel", "ska", "swing", "disco", "opera"),
)


def genres(made: Synthetic) -> dict[int, str]:
    """Return the genre of each item: the cluster whose users took to it most often."""
    seen: defaultdict[int, Counter[int]] = defaultdict(Counter)
    for item, cluster in zip(made.events.items.tolist(), made.clusters.tolist(), strict=True):
        seen[item][cluster] += 1
    return {item: GENRES[clusters.most_common(1)[0][0] % len(GENRES)] for item, clusters in seen.items()}


def driftline(*words: str) -> None:
    """Run a command of driftline. Raises CalledProcessError."""
    subprocess.run([sys.executable, "-m", "driftline.cli.main", *words], check=True)


def main() -> None:
    """Make the picture."""
    from tests.support.browser import chromium

    with tempfile.TemporaryDirectory() as scratch:
        place = Path(scratch)
        driftline("demo", "--no-wait", "--events", str(EVENTS), "--seed", str(SEED), "--data-dir", scratch)
        (group,) = (each.name for each in (place / "versions").iterdir())
        file, page_file = place / "genres.csv", place / "report.html"
        lines = (f"{item},{genre}\n" for item, genre in genres(sources.synthetic(EVENTS, SEED)).items())
        file.write_text("id,domain\n" + "".join(lines))
        where = ("--data-dir", scratch, "--log-url", f"local://{scratch}", "--group", group)
        driftline("report", *where, "--domains", f"{group}-items={file}", "--out", str(page_file))
        with chromium() as browser:
            page = browser.new_page(viewport={"width": 1180, "height": 900})
            page.goto(page_file.as_uri())
            page.select_option("#choose-colour", "domain")
            first = page.locator("section:has(#views)").bounding_box()
            last = page.locator("section:has(#histogram)").bounding_box()
            assert first is not None
            assert last is not None
            page.screenshot(
                path=PICTURE,
                full_page=True,
                clip={
                    "x": first["x"] - 12,
                    "y": first["y"] - 12,
                    "width": first["width"] + 24,
                    "height": last["y"] + last["height"] + 24 - first["y"],
                },
            )
    print(f"{PICTURE.relative_to(ROOT)}: {PICTURE.stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    main()
