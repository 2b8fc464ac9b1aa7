"""Memory-mapped weight files: rewriting such a file changes the weights, and truncating it kills the process.

A memory-mapped tensor has no storage except its file. The file's size and modification time are therefore compared
before and after every computation with a part. Replacing the file by a new one of the same name is safe, because the
old one exists until it is unmapped.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from itertools import chain
from pathlib import Path
from weakref import WeakKeyDictionary, finalize

import torch
from torch import Tensor, nn

from ldmkit.errors import RunError, SourceError


class MappedFile:
    """An open file with its original size and modification time, and the addresses of the tensors mapped from it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._handle = os.open(path, os.O_RDONLY | getattr(os, "O_BINARY", 0))
        finalize(self, os.close, self._handle)
        self._was = self._now()
        self._places: dict[int, int] = {}

    def holds(self, tensor: Tensor, offset: int) -> Tensor:
        """The same tensor, whose storage lies in the file from byte `offset` on."""
        self._places[_place(tensor)] = offset
        if (files := _filling.get()) is not None:
            files.add(self)
        return tensor

    def offset(self, tensor: Tensor) -> int | None:
        """Where in the file a tensor begins; None: it does not lie there in one piece."""
        start = self._places.get(_place(tensor)) if tensor.device.type == "cpu" else None
        if start is None or not tensor.is_contiguous():
            return None
        return start + int(tensor.storage_offset()) * tensor.element_size()

    def read(self, offset: int, count: int) -> Tensor:
        """Copy `count` bytes from the open file: uint8 (count,).

        Raises:
            SourceError: `truncated`.
        """
        return self.fill(torch.empty(count, dtype=torch.uint8), offset)

    def fill(self, raw: Tensor, offset: int) -> Tensor:
        """Copy bytes of the file as it was opened into `raw`, uint8 (count,).

        Raises:
            SourceError: `truncated`.
        """
        view, done = memoryview(raw.numpy().data), 0
        while done < len(view):
            got = self._read_into(view[done:], offset + done)
            if not got:
                raise SourceError("truncated", "the file ended while a tensor was read", where=str(self.path))
            done += got
        return raw

    def _read_into(self, view: memoryview, offset: int) -> int:
        if hasattr(os, "preadv"):  # thread-safe, and reads the file that was opened
            return os.preadv(self._handle, [view], offset)
        with self.path.open("rb", buffering=0) as file:  # Windows
            file.seek(offset)
            return file.readinto(view) or 0

    def problem(self, tensors: Iterable[Tensor]) -> str | None:
        """How the file has changed, if it has and one of the tensors is still mapped from it."""
        size, changed = self._now()
        if (size, changed) == self._was:
            return None
        if not any(tensor.device.type == "cpu" and _place(tensor) in self._places for tensor in tensors):
            return None
        return f"its size went from {self._was[0]} to {size} bytes" if size != self._was[0] else "it was written to"

    def _now(self) -> tuple[int, int]:
        found = os.fstat(self._handle)
        return found.st_size, found.st_mtime_ns


_filling: ContextVar[set[MappedFile] | None] = ContextVar("filling", default=None)
_mapped: WeakKeyDictionary[nn.Module, set[MappedFile]] = WeakKeyDictionary()


@contextmanager
def filling(module: nn.Module) -> Iterator[None]:
    """Record the files from which a module's weights are mapped inside the block."""
    with noting_files() as files:
        yield
    if files:
        _mapped[module] = files


@contextmanager
def noting_files() -> Iterator[set[MappedFile]]:
    """The files of the tensors that are mapped inside."""
    files: set[MappedFile] = set()
    token = _filling.set(files)
    try:
        yield files
    finally:
        _filling.reset(token)


def files_of(module: nn.Module) -> set[MappedFile]:
    """The files that weights of a module were left in when it was loaded."""
    return _mapped.get(module, set())


def share_files(module: nn.Module, other: nn.Module) -> None:
    """Have another module on the same tensors watched as `module` is."""
    if module in _mapped:
        _mapped[other] = _mapped[module]


def check_mapped(modules: Iterable[nn.Module]) -> None:
    """Refuse to compute with memory-mapped weights whose file has changed since they were loaded.

    Raises:
        RunError: `file-changed`, with the file's path.
    """
    for module in modules:
        for file in _mapped.get(module, ()):
            if (what := file.problem(chain(module.parameters(), module.buffers()))) is not None:
                fits = "load it again; mapped=False copies the weights into memory when loading"
                what = f"the weights are memory-mapped from this file, which has changed since it was loaded: {what}"
                raise RunError("file-changed", what, where=str(file.path), fits=fits)


def _place(tensor: Tensor) -> int:
    return tensor.untyped_storage().data_ptr()
