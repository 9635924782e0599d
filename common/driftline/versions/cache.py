"""Objects of the store as mapped memory, fetched by page and checked by page.

Invariant: no byte of an object is handed out before the checksum of its page has
been verified, once per process. Where objects are files of this machine they are
mapped in place; others are fetched, neighbouring pages in one range, into sparse
files of the cache directory (or anonymous memory). Pages of a cache file that do
not verify are fetched again: a cache heals, a store does not.
"""

from __future__ import annotations

import mmap
import os
import threading
import zlib
from collections import OrderedDict
from pathlib import Path
from typing import Any

import cramjam
import numpy as np
from numpy.typing import NDArray

from driftline.errors import DamagedObjectError, FrameError, ObjectMissingError
from driftline.frames.tensors import Array, Frame, decode
from driftline.versions.documents import checksum
from driftline.versions.packing import unpack
from driftline.versions.pages import PAGE, RUN, SHORT, ObjectRef, check_run, digest_of, packed_columns
from driftline.versions.stores import ObjectStore

_GAP = 16  # pages: a smaller hole between two wanted pages is fetched along with them
_REQUEST = 2048  # pages: a longer range is fetched in several requests, side by side
_TAIL = 16  # pages before the checksums that are fetched with them: packed columns lie there
_LIMIT = 1 << 40
DEFAULT_BYTES = 4 << 30


class MappedObject:
    """One object; its tensors are views, to be touched only after `need`."""

    def __init__(self, store: ObjectStore, ref: ObjectRef, file: Path | None, held: bytes | None) -> None:
        self.ref, self._store = ref, store
        self._lock = threading.Lock()
        self._handle: int | None = None
        self._fetches = self._local = False
        if held is not None:
            self._map = mmap.mmap(-1, max(len(held), 1))
            self._map[: len(held)] = held
        else:
            self._map = self._mapped(store.local_path(ref.key), file)
        self._checked_sums: NDArray[np.uint32] | None = None
        if self._fetches:
            self._sums  # noqa: B018 - asks for it now: whoever opens many does so side by side
        else:  # the system reads on while others are opened
            self._ahead([max(ref.body // PAGE - _TAIL, 0), 0], [-(-ref.size // PAGE), 1])
        self._seen = np.zeros(-(-ref.body // PAGE), np.bool_)
        self._frame: Frame | None = None
        self._begins: dict[str, int] = {}
        self._packed: dict[str, tuple[np.dtype[Any], int]] = {}
        self._unpacked: dict[str, Array] = {}

    def _mapped(self, local: Path | None, file: Path | None) -> mmap.mmap:
        size = self.ref.size
        if local is not None:
            try:
                with local.open("rb") as opened:
                    found = os.fstat(opened.fileno()).st_size
                    if found != size:  # a short file would end the process at the first touch
                        raise DamagedObjectError(self.ref.key, "its size", str(size), str(found))
                    self._local = size > 0
                    return mmap.mmap(opened.fileno(), size, access=mmap.ACCESS_READ)
            except FileNotFoundError:
                raise ObjectMissingError(self.ref.key) from None
        self._fetches = True
        if file is None:
            return mmap.mmap(-1, size)
        self._handle = os.open(file, os.O_RDWR | os.O_CREAT, 0o600)
        os.ftruncate(self._handle, size)
        return mmap.mmap(self._handle, size, access=mmap.ACCESS_READ)

    def __del__(self) -> None:
        if getattr(self, "_handle", None) is not None:
            os.close(self._handle)  # type: ignore[arg-type]

    @property
    def _sums(self) -> NDArray[np.uint32]:
        """The checksums of the pages, themselves checked."""
        if self._checked_sums is None:
            self._checked_sums = self._page_sums()
        return self._checked_sums

    def _page_sums(self) -> NDArray[np.uint32]:
        ref = self.ref
        tail = self._map[ref.body : ref.size]
        if self._fetches and digest_of(np.frombuffer(tail, np.uint32)) != ref.digest:
            begin = max(ref.body // PAGE - _TAIL, 0) * PAGE
            head_end = min(PAGE, begin)  # of the first page: the header, most often all of it
            lows, highs = ([0, begin], [head_end, ref.size]) if head_end else ([begin], [ref.size])
            *head, last = self._store.get_ranges(ref.key, lows, highs)
            tail = last[ref.body - begin :]
            if len(last) == ref.size - begin:
                self._write(begin, last)
                for each in head:
                    self._write(0, each)
        found = digest_of(np.frombuffer(tail[: len(tail) // 4 * 4], np.uint32))
        if found != ref.digest:
            raise DamagedObjectError(ref.key, "its page checksums", ref.digest, found)
        return np.frombuffer(tail, np.uint32)

    @property
    def frame(self) -> Frame:
        """The tensors, as views that are not checked yet, and the metadata, which is."""
        if self._frame is None:
            self.need_bytes(np.array([0]), np.array([8]))
            header = int.from_bytes(self._map[:8], "little")
            self.need_bytes(np.array([0]), np.array([min(8 + header, self.ref.body)]))
            try:
                frame = decode(self._map, limit=_LIMIT)
            except FrameError as error:  # its checksums are right: it was never one of ours
                raise DamagedObjectError(
                    self.ref.key, "its header", "a safetensors header", str(error)
                ) from None
            begin = 8 + header
            for name, tensor in frame.tensors.items():
                self._begins[name] = begin
                begin += tensor.nbytes
            try:
                self._packed = packed_columns(frame.metadata)
            except ValueError as error:
                raise DamagedObjectError(
                    self.ref.key, "its header", "the packed columns", str(error)
                ) from None
            self._frame = frame
        return self._frame

    def tensor(self, name: str) -> Array:
        """Return a tensor, all of it checked; a packed one is unpacked once."""
        view = self.frame.tensors[name]
        known = self._unpacked.get(name)
        if known is not None:
            return known
        begin = self._begins[name]
        self.need_bytes(np.array([begin]), np.array([begin + view.nbytes]))
        if name not in self._packed:
            return view
        dtype, count = self._packed[name]
        try:
            return self._unpacked.setdefault(name, unpack(view, count, dtype))
        except (ValueError, OverflowError, cramjam.DecompressionError) as error:
            raise DamagedObjectError(self.ref.key, f"column {name}", "one that unpacks", str(error)) from None

    def column(self, name: str) -> Array:
        """Return a tensor, of which only rows may be touched that `need` has been asked for."""
        view = self.frame.tensors[name]
        return self.tensor(name) if name in self._packed else view

    def rows(self, name: str, at: NDArray[np.int64]) -> Array:
        """Return rows of a tensor, checked, as a copy."""
        view = self.frame.tensors[name]
        if name in self._packed:
            return np.asarray(self.tensor(name)[at])
        stride = view.strides[0] if len(view) and view.size else 0
        first = (self._begins[name] + at * stride) // PAGE
        last = (self._begins[name] + at * stride + (stride - 1)) // PAGE
        # a call per segment and tensor: the usual case, all seen before, has to be short
        if stride > PAGE or (stride and not (self._seen[first].all() and self._seen[last].all())):
            self.need(name, at, at + 1)
        return np.asarray(view[at])

    def ahead(self, name: str, at: NDArray[np.int64]) -> None:
        """Have the system read rows of a tensor in a file of this machine, before `need` waits for them."""
        if self._local:
            view = self.frame.tensors[name]
            stride = view.nbytes // len(view) if len(view) else 0
            pages = np.unique((self._begins[name] + at * stride) // PAGE)
            self._ahead_of(pages[~self._seen[pages]])

    def need(self, name: str, starts: NDArray[np.int64], ends: NDArray[np.int64]) -> None:
        """Make sure that rows [start, end) of a tensor are here and unharmed.

        Raises DamagedObjectError, ObjectMissingError, ObjectStoreUnavailableError.
        """
        view = self.frame.tensors[name]
        if name in self._packed:
            self.tensor(name)
            return
        stride = view.nbytes // len(view) if len(view) else 0
        begin = self._begins[name]
        self.need_bytes(begin + starts * stride, begin + ends * stride)

    @property
    def all_seen(self) -> bool:
        """Whether every page has been read and verified."""
        return bool(self._seen.all())

    def check(self) -> None:
        """Verify every page. Raises DamagedObjectError."""
        self.need_bytes(np.array([0]), np.array([self.ref.body]))

    def need_bytes(self, starts: NDArray[np.int64], ends: NDArray[np.int64]) -> None:
        """Make sure that the bytes in each [start, end) are here and unharmed."""
        some = ends > starts
        first, last = starts[some] // PAGE, (ends[some] - 1) // PAGE
        if not len(first):
            return
        if len(first) == 1:
            pages = np.arange(first[0], last[0] + 1)
        else:
            width = int((last - first).max()) + 1
            pages = np.minimum(first[:, None] + np.arange(width), last[:, None]).reshape(-1)
        pages = pages[~self._seen[pages]]
        if len(pages):
            with self._lock:
                self._check(np.unique(pages))

    def _check(self, pages: NDArray[np.int64]) -> None:
        wrong = self._wrong(pages)
        if len(wrong) and self._fetches:
            self._fetch(wrong)
            wrong = self._wrong(wrong)
        if len(wrong):
            page = int(wrong[0])
            start, end = page * PAGE, min(page * PAGE + PAGE, self.ref.body)
            raise DamagedObjectError(
                self.ref.key,
                f"bytes {start} to {end}",
                f"CRC-32 {int(self._sums[page]):08x}",
                f"{zlib.crc32(self._map[start:end]):08x}",
            )
        self._seen[pages] = True

    def _wrong(self, pages: NDArray[np.int64]) -> NDArray[np.int64]:
        self._ahead_of(pages)
        view, body = memoryview(self._map), self.ref.body
        ends = np.flatnonzero((np.diff(pages) != 1) | ((pages[1:] - pages[0]) % RUN == 0)) + 1
        starts, ends = np.r_[0, ends], np.r_[ends, len(pages)]
        long = ends - starts >= SHORT
        wrong = [
            check_run(view[first * PAGE : min((last + 1) * PAGE, body)], self._sums[first : last + 1], first)
            for first, last in zip(pages[starts[long]].tolist(), pages[ends[long] - 1].tolist(), strict=True)
        ]
        if not long.all():
            rest, crc32 = pages[np.repeat(~long, ends - starts)], zlib.crc32
            found = [crc32(view[at : min(at + PAGE, body)]) for at in (rest * PAGE).tolist()]
            wrong.append(rest[np.array(found, np.uint32) != self._sums[rest]])
        return np.concatenate(wrong)

    def _ahead_of(self, pages: NDArray[np.int64]) -> None:
        """Have the system read these pages of a file, and small gaps between them, all at once."""
        if self._local and len(pages):
            breaks = np.flatnonzero(np.diff(pages) > _GAP) + 1
            self._ahead(
                pages[np.r_[0, breaks]].tolist(), (pages[np.r_[breaks - 1, len(pages) - 1]] + 1).tolist()
            )

    def _ahead(self, firsts: list[int], ends: list[int]) -> None:
        """Have the system read pages [first, end) of a file now, rather than one by one when touched."""
        if self._local:
            for first, end in zip(firsts, ends, strict=True):
                self._map.madvise(
                    mmap.MADV_WILLNEED, first * PAGE, min(end * PAGE, self.ref.size) - first * PAGE
                )

    def _fetch(self, pages: NDArray[np.int64]) -> None:
        breaks = np.flatnonzero(np.diff(pages) > _GAP) + 1
        firsts, lasts = pages[np.r_[0, breaks]], pages[np.r_[breaks - 1, len(pages) - 1]]
        starts: list[int] = []
        for first, last in zip(firsts.tolist(), lasts.tolist(), strict=True):
            starts += range(first, last + 1, _REQUEST)
        ends = [
            min(start + _REQUEST, int(lasts[np.searchsorted(lasts, start)]) + 1, len(self._seen))
            for start in starts
        ]
        low, high = [at * PAGE for at in starts], [min(at * PAGE, self.ref.body) for at in ends]
        for at, end, data in zip(low, high, self._store.get_ranges(self.ref.key, low, high), strict=True):
            if len(data) != end - at:
                found = f"{at + len(data)} bytes"
                raise DamagedObjectError(self.ref.key, "its size", f"{self.ref.size} bytes", found)
            self._write(at, data)

    def _write(self, at: int, data: bytes) -> None:
        if self._handle is None:
            self._map[at : at + len(data)] = data
            return
        view = memoryview(data)
        while view:  # never through the map: a full disk would end the process
            done = os.pwrite(self._handle, view, at)
            at, view = at + done, view[done:]


class ObjectCache:
    """Mapped objects, the least recently opened dropped beyond a number of bytes.

    Parameters
    ----------
    directory: for objects that have to be fetched; None keeps them in memory.
    limit: bytes of objects kept open (and, in the directory, on disk).
    """

    def __init__(self, store: ObjectStore, directory: Path | None = None, limit: int = DEFAULT_BYTES) -> None:
        self.store, self._directory, self._limit = store, directory, limit
        self._open: OrderedDict[str, MappedObject] = OrderedDict()
        self._held: dict[str, bytes] = {}
        self._bytes = 0
        self._lock = threading.Lock()
        if directory is not None:
            directory.mkdir(parents=True, exist_ok=True)

    @property
    def far(self) -> bool:
        """Whether objects are fetched by requests, which are better made side by side."""
        return self.store.local_path("format.json") is None

    def open(self, ref: ObjectRef) -> MappedObject:
        """Return an object, mapped. Raises ObjectMissingError, DamagedObjectError."""
        with self._lock:
            found = self._open.get(ref.key)
            if found is not None and found.ref == ref:
                self._open.move_to_end(ref.key)
                return found
        opened = MappedObject(self.store, ref, self._file(ref.key), self._held.get(ref.key))
        with self._lock:
            if ref.key in self._open and self._open[ref.key].ref == ref:
                return self._open[ref.key]  # another thread was faster
            self._open[ref.key] = opened
            self._bytes += ref.size
            while self._bytes > self._limit and len(self._open) > 1:
                self._drop(next(iter(self._open)))
        return opened

    def hold(self, key: str, data: bytes) -> None:
        """Serve an object from memory: it is not, or not yet, in the store."""
        self._held[key] = data

    def release(self, key: str) -> bytes | None:
        """Hold an object no longer; return its bytes."""
        with self._lock:
            if key in self._open:
                self._drop(key)
        return self._held.pop(key, None)

    def held(self, key: str) -> bytes | None:
        """Return the bytes of an object that is held."""
        return self._held.get(key)

    @property
    def held_bytes(self) -> int:
        """Bytes of the objects held in memory."""
        return sum(map(len, list(self._held.values())))

    def forget(self) -> None:
        """Drop what is mapped: the next read checks each page anew."""
        with self._lock:
            self._open.clear()
            self._bytes = 0

    def _file(self, key: str) -> Path | None:
        return self._directory / checksum(key.encode()) if self._directory is not None else None

    def _drop(self, key: str) -> None:
        self._bytes -= self._open.pop(key).ref.size
        file = self._file(key)
        if file is not None:
            file.unlink(missing_ok=True)
