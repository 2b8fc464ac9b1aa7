"""Files whose pages are weights: who rewrites such a file changes the weights, who truncates it ends the program.

A mapped tensor has no bytes but those of its file. What can be seen from outside, the file's size and the time of its
last change, is compared before and after everything that computes with a part. A new file that takes the name of the
old one does no harm: the old one stays until nobody maps it.
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
    """A file as it was when it was opened, and where tensors that lie in it are in memory."""

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
        """Copy `count` bytes of the file as it was opened: uint8 (count,).

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
        if hasattr(os, "preadv"):  # safe in threads, and of the file that was opened
            return os.preadv(self._handle, [view], offset)
        with self.path.open("rb", buffering=0) as file:  # Windows
            file.seek(offset)
            return file.readinto(view) or 0

    def problem(self, tensors: Iterable[Tensor]) -> str | None:
        """What has happened to the file, if anything has and one of the tensors still lies in it."""
        size, changed = self._now()
        if (size, changed) == self._was:
            return None
        if not any(tensor.device.type == "cpu" and _place(tensor) in self._places for tensor in tensors):
            return None
        return f"it had {self._was[0]} bytes, and has {size}" if size != self._was[0] else "it was written to"

    def _now(self) -> tuple[int, int]:
        found = os.fstat(self._handle)
        return found.st_size, found.st_mtime_ns


_filling: ContextVar[set[MappedFile] | None] = ContextVar("filling", default=None)
_mapped: WeakKeyDictionary[nn.Module, set[MappedFile]] = WeakKeyDictionary()


@contextmanager
def filling(module: nn.Module) -> Iterator[None]:
    """A block that gives a module its weights: the files that they stay in are remembered."""
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
    """Refuse to compute with weights whose file is not what it was when they were loaded.

    Raises:
        RunError: `file-changed`, naming the file.
    """
    for module in modules:
        for file in _mapped.get(module, ()):
            if (what := file.problem(chain(module.parameters(), module.buffers()))) is not None:
                fits = "load it again; mapped=False, when loading, keeps weights in memory of their own"
                what = f"weights in use lie in this file, which has changed since it was loaded: {what}"
                raise RunError("file-changed", what, where=str(file.path), fits=fits)


def _place(tensor: Tensor) -> int:
    return tensor.untyped_storage().data_ptr()
