"""Runs a function in a process of its own as a side of a comparison: memory and interpreter are fresh.

    result = call("bench.drain_sides:fetch", {"broker": url})     # arguments and result are JSON

`python -m bench.child MODULE:FUNCTION` reads the arguments from stdin and prints the result last.
"""

from __future__ import annotations

import importlib
import os
import subprocess
import sys
from typing import Any

import orjson


def call(function: str, arguments: dict[str, Any], timeout: float = 300.0, blas_threads: int = 1) -> Any:
    """Return what `function(**arguments)` returns there. Raises CalledProcessError when it fails."""
    done = subprocess.run(
        [sys.executable, "-m", "bench.child", function],
        input=orjson.dumps(arguments),
        stdout=subprocess.PIPE,
        check=True,
        timeout=timeout,
        env={**os.environ, "OPENBLAS_NUM_THREADS": str(blas_threads)},
    )
    return orjson.loads(done.stdout.splitlines()[-1])


def start(function: str, arguments: dict[str, Any]) -> subprocess.Popen[bytes]:
    """Start `function(**arguments)`; the result is the last line of its output."""
    child = subprocess.Popen(
        [sys.executable, "-m", "bench.child", function],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={**os.environ, "OPENBLAS_NUM_THREADS": "1"},
    )
    assert child.stdin is not None
    child.stdin.write(orjson.dumps(arguments))
    child.stdin.close()
    child.stdin = None  # `communicate` would close it again
    return child


def main() -> None:
    module, _, name = sys.argv[1].partition(":")
    function = getattr(importlib.import_module(module), name)
    result = function(**orjson.loads(sys.stdin.buffer.read()))
    sys.stdout.buffer.write(b"\n" + orjson.dumps(result) + b"\n")
    sys.stdout.flush()
    os._exit(0)  # threads of some peers' runtimes abort an interpreter that takes its time to end


if __name__ == "__main__":
    main()
