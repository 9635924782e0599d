"""Owner maps: for each ordinal, the segment that holds its row [EM10, first mode].

Invariant: an owner map is complete for what its version held when it was written:
code 0 says that there is no row, code c names segment c - 1 of the map's own list.
Segments are searched newest first only as far back as the last owner map.

Codes are of one byte up to 255 segments, else two, in zstd pages of 65,536 rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cramjam
import numpy as np
import orjson
from numpy.typing import NDArray

from driftline.errors import DamagedObjectError
from driftline.versions.cache import ObjectCache
from driftline.versions.pages import ObjectRef, Sealed, seal

OWNER_PAGE = 65_536
NOBODY = 0
_LEVEL = 1


@dataclass(frozen=True, slots=True)
class OwnerRef:
    """An owner map as a manifest lists it."""

    ref: ObjectRef
    ordinals: int  # it covers [0, ordinals)
    covers: int  # of the manifest's segments, the first so many


def write_owner_map(
    key: str, table: str, part: int, codes: NDArray[np.uint16], segments: Sequence[str]
) -> tuple[OwnerRef, Sealed]:
    """Return the owner map of `codes`, which number `segments` (object keys) from 1."""
    width = 1 if len(segments) < 256 else 2
    narrow = codes.astype(np.uint8) if width == 1 else codes
    pages = [
        bytes(cramjam.zstd.compress(narrow[at : at + OWNER_PAGE].tobytes(), level=_LEVEL))
        for at in range(0, len(codes), OWNER_PAGE)
    ]
    metadata = {"type": "owners", "table": table, "part": str(part), "width": str(width)}
    sealed = seal(
        key,
        metadata,
        {
            "offsets": np.cumsum([0, *map(len, pages)], dtype=np.uint64),
            "segments": np.frombuffer(orjson.dumps(list(segments)), np.uint8),
            "pages": np.frombuffer(b"".join(pages), np.uint8),
        },
    )
    return OwnerRef(sealed.ref, len(codes), len(segments)), sealed


class OwnerMap:
    """An owner map in mapped memory; pages are unpacked once each."""

    def __init__(self, cache: ObjectCache, entry: OwnerRef) -> None:
        self._entry = entry
        self._object = cache.open(entry.ref)
        self.segments: tuple[str, ...] = tuple(orjson.loads(self._object.tensor("segments").tobytes()))
        self._offsets = self._object.tensor("offsets").astype(np.int64)
        self._pages: dict[int, NDArray[np.uint16]] = {}

    def codes(self, ordinals: NDArray[np.int64]) -> NDArray[np.uint16]:
        """Return the code of each ordinal, NOBODY for those beyond the map."""
        codes = np.zeros(len(ordinals), np.uint16)
        page_of = ordinals // OWNER_PAGE
        inside = (ordinals >= 0) & (ordinals < self._entry.ordinals)
        for page in np.unique(page_of[inside]).tolist():
            here = inside & (page_of == page)
            codes[here] = self._page(page)[ordinals[here] - page * OWNER_PAGE]
        return codes

    def all(self) -> NDArray[np.uint16]:
        """Return all codes."""
        pages = [self._page(page) for page in range(len(self._offsets) - 1)]
        return np.concatenate(pages) if pages else np.zeros(0, np.uint16)

    def _page(self, page: int) -> NDArray[np.uint16]:
        found = self._pages.get(page)
        if found is None:
            start, end = self._offsets[page], self._offsets[page + 1]
            self._object.need("pages", np.array([start]), np.array([end]))
            frame = self._object.frame
            raw = bytes(cramjam.zstd.decompress(frame.tensors["pages"][start:end].tobytes()))
            dtype = np.uint8 if frame.metadata["width"] == "1" else np.uint16
            found = np.frombuffer(raw, dtype).astype(np.uint16)
            rows = min(OWNER_PAGE, self._entry.ordinals - page * OWNER_PAGE)
            if len(found) != rows or (len(found) and int(found.max()) > len(self.segments)):
                raise DamagedObjectError(
                    self._entry.ref.key, f"page {page}", f"{rows} codes", f"{len(found)}, or beyond its list"
                )
            self._pages[page] = found
        return found
