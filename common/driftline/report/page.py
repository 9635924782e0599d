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
from string import Template

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


def render(report: Report) -> str:
    """Return the page."""
    style, script = asset("report.css"), _script()
    return Template(asset("page.html")).substitute(
        policy=(
            f"default-src 'none'; script-src '{_digest(script)}'; style-src '{_digest(style)}'; "
            "img-src data:; base-uri 'none'; form-action 'none'"
        ),
        title=f"driftline: {escape(report.group)} {escape(report.after)}",
        style=style,
        compared=asset("compared.html") if report.tables else "",
        data=embedded(report),
        script=script,
    )


def embedded(report: Report) -> str:
    """Return the report as JSON in which no character is of any meaning to HTML."""
    return orjson.dumps(report).decode().translate(_UNSAFE)


@cache
def asset(name: str) -> str:
    """Return a file of the page."""
    return (files("driftline.report") / "assets" / name).read_text(encoding="utf-8")


@cache
def _script() -> str:
    parts = "\n".join(asset(f"{name}.js") for name in _SCRIPTS)
    return f'"use strict";\n(() => {{\n{parts}}})();\n'


def _digest(text: str) -> str:
    digest = hashlib.sha256(text.encode()).digest()
    return f"sha256-{base64.b64encode(digest).decode()}"
