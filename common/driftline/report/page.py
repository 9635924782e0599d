"""A report as one HTML page that needs nothing else.

Invariant: what comes from data is inside one JSON block in which no character can end it, and becomes
text, never markup; the page's policy lets run only the very script and style that are in it, and
lets it ask no host for anything.
"""

from __future__ import annotations

import base64
import hashlib
from functools import cache
from html import escape
from importlib.resources import files

import orjson

from driftline.report.model import Report

_SCRIPTS = (
    "base",
    "timeline",
    "alarms",
    "lineage",
    "compared",
    "views",
    "histogram",
    "ranking",
    "node",
    "domains",
    "main",
)
_UNSAFE = {ord(each): f"\\u{ord(each):04x}" for each in "<>&\u2028\u2029"}

_SECTIONS = (
    ("timeline", "Timeline", "What the control topic tells and the store holds."),
    ("alarms", "Alarms", "Each with the figures it was raised from, and what became of it."),
    ("lineage", "Versions", ""),
)


def render(report: Report) -> str:
    """Return the page."""
    style, script = asset("report.css"), _script()
    policy = (
        f"default-src 'none'; script-src '{_digest(script)}'; style-src '{_digest(style)}'; "
        "img-src data:; base-uri 'none'; form-action 'none'"
    )
    sections = "".join(
        f'<section id="{name}" aria-labelledby="{name}-title"><h2 id="{name}-title">{title}</h2>'
        + (f'<p class="lead">{lead}</p>' if lead else "")
        + f'<div id="{name}-body"></div></section>\n'
        for name, title, lead in _SECTIONS
    )
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{policy}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="referrer" content="no-referrer">
<link rel="icon" href="data:,">
<title>driftline: {escape(report.group)} {escape(report.after)}</title>
<style>{style}</style>
</head>
<body>
<a class="skip" href="#main">To the content</a>
<header class="top"><nav aria-label="Parts of the page"><span class="brand">driftline</span>
<a href="#timeline">Timeline</a><a href="#alarms">Alarms</a><a href="#lineage">Versions</a>
<a href="#compare">Comparison</a></nav></header>
<main id="main">
<h1 id="title"></h1>
<noscript><p>This page draws its data with a script that it carries: allow scripts to see it.</p></noscript>
<div id="notes"></div>
<div id="tiles" class="tiles"></div>
{sections}<section id="compare" aria-labelledby="compare-title"><h2 id="compare-title">Comparison</h2>
<div id="compare-body"><div id="summary"></div>
<div id="settings" class="bar" role="group" aria-label="What is compared and how"></div>
<p id="reasons" class="hint reasons"></p></div></section>
{_COMPARED if report.tables else ""}</main>
<footer id="made" class="made"></footer>
<script type="application/json" id="report">{embedded(report)}</script>
<script>{script}</script>
</body>
</html>
"""


_COMPARED = """<section aria-labelledby="views-title"><h2 id="views-title">Both versions in two dimensions</h2>
<p class="lead">One projection for both, the common rotation taken out: a row that did not move is at the same
place.</p><div id="views"></div></section>
<section aria-labelledby="histogram-title"><h2 id="histogram-title">Local neighbour similarity</h2>
<div id="histogram"></div></section>
<section aria-labelledby="ranking-title"><h2 id="ranking-title">Changed rows</h2><div id="ranking"></div></section>
<section aria-labelledby="node-heading"><h2 id="node-heading">The chosen row</h2><div id="node"></div></section>
<section aria-labelledby="domains-title"><h2 id="domains-title">Domains</h2><div id="domains"></div></section>
"""


def embedded(report: Report) -> str:
    """Return the report as JSON in which no character is of any meaning to HTML."""
    return orjson.dumps(report).decode().translate(_UNSAFE)


@cache
def asset(name: str) -> str:
    """Return a file of the page."""
    return (files("driftline.report") / "assets" / name).read_text(encoding="utf-8")


@cache
def _script() -> str:
    return '"use strict";\n(() => {\n' + "\n".join(asset(f"{name}.js") for name in _SCRIPTS) + "})();\n"


def _digest(text: str) -> str:
    digest = hashlib.sha256(text.encode()).digest()
    return f"sha256-{base64.b64encode(digest).decode()}"
