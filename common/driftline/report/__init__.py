"""Versions, alarms and changed rows to look at: what a page or a console shows, and one such page.

Invariant: `model` is plain values that become JSON; the functions that make them are pure over arrays,
manifests and control events. Only `gather` reads a store and a log, and only `page` knows HTML.
"""

from driftline.report.alarms import alarms
from driftline.report.comparing import Rows, compare_tables
from driftline.report.domains import Domains, read_domains
from driftline.report.gather import Ask, gather
from driftline.report.lineage import lineage
from driftline.report.model import Report
from driftline.report.page import render
from driftline.report.timeline import timeline

__all__ = [
    "Ask",
    "Domains",
    "Report",
    "Rows",
    "alarms",
    "compare_tables",
    "gather",
    "lineage",
    "read_domains",
    "render",
    "timeline",
]
