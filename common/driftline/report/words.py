"""Figures and metadata of any kind as short words.

Invariant: nothing is dropped but what is too long for a line, and that ends with an ellipsis.
"""

from __future__ import annotations

from collections.abc import Mapping

import orjson

from driftline.report.model import Fact

_LONGEST = 200  # characters of a value


def word(value: object) -> str:
    """Return a value in words: numbers to four figures, anything else as it is or as JSON.

    Examples
    --------
    >>> word(0.123456), word(12345678), word("x"), word([1, 2])
    ('0.1235', '12,345,678', 'x', '[1,2]')
    """
    if isinstance(value, bool) or value is None:
        text = {True: "yes", False: "no", None: "none"}[value]
    elif isinstance(value, float):
        text = f"{value:.4g}"
    elif isinstance(value, int):
        text = f"{value:,}"
    else:
        text = (
            value if isinstance(value, str) else orjson.dumps(value, option=orjson.OPT_NON_STR_KEYS).decode()
        )
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 1]}…"


def facts_of(values: Mapping[str, object]) -> tuple[Fact, ...]:
    """Return each value with its name, underscores as blanks."""
    return tuple(Fact(name.replace("_", " "), word(value)) for name, value in values.items())


def told_facts(values: Mapping[str, object]) -> list[str]:
    """Return each value after its name."""
    return [f"{fact.name} {fact.value}" for fact in facts_of(values)]
