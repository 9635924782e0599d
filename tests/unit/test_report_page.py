"""The report in a real browser: it draws, it obeys, it asks nobody, and text stays text."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, ConsoleMessage, Error, Page, Request, expect

from driftline.drift.measures import NODE_MEASURES
from driftline.report import render
from tests.support import reports
from tests.support.browser import chromium
from tests.support.reports import HOSTILE


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as running:
        yield running


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("report") / "report.html"
    made = reports.report(reports.comparison(HOSTILE), reports.comparison("users", seed=1))
    file.write_text(render(made), encoding="utf-8")
    return file


class Watched:
    """A page, and whatever went wrong on it."""

    def __init__(self, page: Page) -> None:
        self.page = page
        self.wrong: list[str] = []
        self.asked: list[str] = []
        page.on("console", self._console)
        page.on("pageerror", self._error)
        page.on("request", self._request)

    def _console(self, message: ConsoleMessage) -> None:
        self.wrong.append(f"{message.type}: {message.text}")

    def _error(self, error: Error) -> None:
        self.wrong.append(str(error))

    def _request(self, request: Request) -> None:
        self.asked.append(request.url)

    def words(self, selector: str) -> str:
        return self.page.locator(selector).inner_text()


@pytest.fixture
def watched(browser: Browser, written: Path) -> Iterator[Watched]:
    """The page, open; in the end nothing was complained of and nobody was asked for anything."""
    page = browser.new_page(viewport={"width": 1280, "height": 800})
    page.set_default_timeout(10_000)
    seen = Watched(page)
    page.goto(written.as_uri())
    yield seen
    page.close()
    assert seen.wrong == []
    assert [url for url in seen.asked if not url.startswith("data:")] == [written.as_uri()]


def test_every_part_is_drawn(watched: Watched) -> None:
    for part in ("timeline-body", "alarms-body", "lineage-body", "summary", "views", "histogram", "ranking"):
        assert watched.words(f"#{part}"), part
    assert watched.page.locator("#timeline-body svg g").count() >= 8
    assert watched.page.locator("#alarms-body article").count() == 1
    assert watched.page.locator("#lineage-body path.back").count() == 1
    assert "All 118 rows that are in both versions are drawn" in watched.words("#sample-size")
    assert painted(watched.page, "view-old") > 100


def test_hostile_text_stays_text(watched: Watched) -> None:
    assert watched.page.locator("img").count() == 0
    assert watched.words("#title").startswith("</script><img src=x onerror=alert(1)>&amp;'\"")
    assert HOSTILE.rstrip("\u2028") in (
        watched.page.locator("#choose-table option").first.text_content() or ""
    )
    assert "onerror" in watched.words("#alarms-body")


def test_k_distance_and_reduction_choose_the_histogram(watched: Watched) -> None:
    page = watched.page
    seen = {watched.words("#histogram-words")}
    for name, value in (("choose-k", "5"), ("choose-metric", "l2"), ("choose-space", "pca")):
        page.select_option(f"#{name}", value)
        seen.add(watched.words("#histogram-words"))
    assert len(seen) == 4
    assert "K = 5, Euclidean (L2), PCA in 2 dimensions" in watched.words("#histogram-words")


def test_a_reduction_that_is_not_installed_is_greyed_with_its_reason(watched: Watched) -> None:
    for option in watched.page.locator("#choose-view option:disabled").all():
        name, reason = option.inner_text(), option.get_attribute("title")
        assert f"{name} cannot be chosen: {reason}." in watched.words("#views")
    assert watched.page.locator("#choose-view option").all_inner_texts() == ["PCA", "t-SNE", "UMAP"]


def test_a_row_that_is_chosen_shows_both_graphs_and_its_five_measures(watched: Watched) -> None:
    page = watched.page
    other = page.locator("#ranking button.link").nth(2)
    name = other.inner_text()
    other.click()
    assert watched.words("#node-title").startswith(f"Row {name}")
    for side in ("old", "new"):
        assert page.locator(f"#graph-{side} .spoke").count() == 10
    assert page.locator("#node dd").count() == 5
    assert page.locator("[data-measure=change_quantity]").inner_text().split(" of ")[0].isdigit()
    shown = {each.name for each in NODE_MEASURES} & {
        each.get_attribute("data-measure") for each in page.locator("#node dd").all()
    }
    assert len(shown) == 5


def test_a_row_can_be_chosen_in_a_picture(watched: Watched) -> None:
    page = watched.page
    before = watched.words("#node-title")
    page.locator("#view-new").scroll_into_view_if_needed()
    box = page.locator("#view-new").bounding_box()
    assert box is not None
    for part in range(20, 100, 5):  # somewhere on the diagonal there is a row
        page.mouse.click(box["x"] + box["width"] * part / 120, box["y"] + box["height"] * part / 120)
        if watched.words("#node-title") != before:
            return
    raise AssertionError("no click chose a row")


def test_all_of_it_works_from_the_keyboard(watched: Watched) -> None:
    page = watched.page
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.className") == "skip"
    page.focus("#choose-k")
    page.keyboard.press("ArrowDown")
    assert "K = 15" in watched.words("#histogram-words")
    page.focus("[data-sort=distance]")
    page.keyboard.press("Enter")
    assert page.locator("th[aria-sort=descending]").inner_text().startswith("distance")
    row = page.locator("#ranking button.link").nth(1)
    name = row.inner_text()
    row.focus()
    page.keyboard.press("Enter")
    assert watched.words("#node-title").startswith(f"Row {name}")
    assert page.evaluate("document.activeElement.textContent") == name
    page.fill("#find-id", "12")
    page.keyboard.press("Enter")
    assert watched.words("#found") == "12 is not among the drawn rows."
    unnamed = page.evaluate(
        """[...document.querySelectorAll("select, input, button, canvas, svg")]
        .filter((each) => !each.labels?.length && !each.textContent.trim())
        .filter((each) => !each.getAttribute("aria-label")).length"""
    )
    assert unnamed == 0


def test_the_other_table_is_shown_when_chosen(watched: Watched) -> None:
    watched.page.select_option("#choose-table", "1")
    assert "rows of users" in watched.words("#summary")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_is_legible_in_both_colour_schemes(watched: Watched, scheme: str) -> None:
    watched.page.emulate_media(color_scheme="dark" if scheme == "dark" else "light")
    found = watched.page.evaluate(_CONTRASTS)
    assert len(found) > 10
    assert min(found.values()) >= 4.5, found
    expect(watched.page.locator("#view-old")).to_be_visible()
    assert painted(watched.page, "view-old") > 100


def test_a_report_without_two_versions_is_whole(browser: Browser, tmp_path: Path) -> None:
    file = tmp_path / "one.html"
    file.write_text(render(reports.report()), encoding="utf-8")
    page = browser.new_page()
    seen = Watched(page)
    page.goto(file.as_uri())
    assert "no two versions to compare" in seen.words("#compare")
    page.close()
    assert seen.wrong == []


def painted(page: Page, canvas: str) -> int:
    """Return how many points of a canvas are not empty."""
    found = page.evaluate(_PAINTED, canvas)
    return int(found)


_PAINTED = """(name) => {
  const each = document.getElementById(name);
  const cells = each.getContext("2d").getImageData(0, 0, each.width, each.height).data;
  let count = 0;
  for (let at = 3; at < cells.length; at += 4) count += cells[at] > 0;
  return count;
}"""

_CONTRASTS = """() => {
  const pen = document.createElement("canvas").getContext("2d", { willReadFrequently: true });
  const parts = (colour) => { pen.clearRect(0, 0, 1, 1); pen.fillStyle = colour; pen.fillRect(0, 0, 1, 1);
    return [...pen.getImageData(0, 0, 1, 1).data].slice(0, 3); };
  const light = (colour) => { const [r, g, b] = parts(colour).map((each) => each / 255)
      .map((each) => (each <= 0.04 ? each / 12.92 : ((each + 0.055) / 1.055) ** 2.4));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b; };
  const behind = (node) => { for (let at = node; at; at = at.parentElement) {
    const colour = getComputedStyle(at).backgroundColor;
    if (!/, 0\\)$|transparent|\\/ 0\\.|color\\(/.test(colour)) return colour; } return "white"; };
  const found = {};
  const all = "h1, h2, p, th, td, dt, dd, a, button:enabled, select, li, caption, svg text";
  for (const node of document.querySelectorAll(all)) {
    if (!node.textContent.trim() || !node.getClientRects().length) continue;
    const style = getComputedStyle(node), svg = node instanceof SVGElement;
    const [one, other] = [light(svg ? style.fill : style.color), light(behind(node))];
    const key = `${node.tagName} ${svg ? style.fill : style.color} on ${behind(node)}`;
    found[key] = (Math.max(one, other) + 0.05) / (Math.min(one, other) + 0.05);
  }
  return found;
}"""
