"""What the interpreter and the C library are told before a worker works.

Invariant: it changes how fast memory is had, never what is computed; where the C library is
not glibc, its half is left out.

Batches are large arrays that live for milliseconds. By default glibc gives each back to the
system, which clears its pages anew for the next: 15 % of a worker's time while it drains a
backlog. And the collector walks all modules again and again for cycles that batches
do not make: 8 %.
"""

from __future__ import annotations

import ctypes
import gc

_TRIM, _MMAP = -1, -3  # malloc.h: M_TRIM_THRESHOLD, M_MMAP_THRESHOLD
_KEPT = 32 << 20
"""Bytes of free memory kept for the next batch, and the size from which an array is mapped by itself."""
_COLLECT_AFTER = 20_000
"""New objects until the collector looks for cycles; Python's default is 700."""


def settle() -> None:
    """Call once everything is imported, before the first batch."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(_COLLECT_AFTER, 10, 10)
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_TRIM, _KEPT)
        mallopt(_MMAP, _KEPT)
