"""The tables of docs/reference, generated so that they cannot go stale.

`python -m driftline.config.reference FILE` rewrites them in place, between
`<!-- generated: NAME -->` and `<!-- end -->`.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

from driftline import metrics
from driftline.config.loading import OTHER_VARIABLES, variable_of
from driftline.config.settings import Settings, shown

_BLOCK = re.compile(r"(<!-- generated: (\w+) -->\n).*?(<!-- end -->)", re.DOTALL)


def settings_table() -> str:
    """Return the table of all settings, in Markdown."""
    rows = ["| setting | variable | unit | default | meaning |", "|---|---|---|---|---|"]
    for name, field in Settings.model_fields.items():
        extra = field.json_schema_extra
        unit = extra.get("unit", "") if isinstance(extra, Mapping) else ""
        default = shown(name, field.default)
        cells = (
            f"`{name}`",
            f"`{variable_of(name)}`",
            unit,
            "" if default is None else f"`{default}`",
            field.description,
        )
        rows.append("| " + " | ".join(str(cell) for cell in cells) + " |")
    return "\n".join(rows) + "\n"


def other_variables_table() -> str:
    """Return the table of the variables that carry the prefix and are no settings."""
    rows = ["| variable | meaning |", "|---|---|"]
    return "\n".join(rows + [f"| `{name}` | {meaning} |" for name, meaning in OTHER_VARIABLES.items()]) + "\n"


def fill(page: str) -> str:
    """Return `page` with its generated blocks replaced. Raises KeyError for a block of another name."""
    return _BLOCK.sub(lambda match: match[1] + TABLES[match[2]]() + match[3], page)


TABLES: Mapping[str, Callable[[], str]] = {
    "settings": settings_table,
    "variables": other_variables_table,
    "metrics": metrics.reference_table,
}

if __name__ == "__main__":
    target = Path(sys.argv[1])
    target.write_text(fill(target.read_text("utf-8")), "utf-8")
