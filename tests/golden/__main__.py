"""Write frames.json anew: `python -m tests.golden`."""

from tests.golden import PATH, render

PATH.write_text(render())
