"""Resting tensors: weights kept off the computing device (or quantised), and how they are fetched for use."""

from __future__ import annotations

import ctypes
import mmap
import sys
import tempfile
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor

from ldmkit.errors import CompositionError, RunError
from ldmkit.models.mapped import MappedFile, noting_files
from ldmkit.models.weights import ALIGNMENT, open_safetensors, write_safetensors

CHUNK = 2**24
"""Bytes of a file compared at a time."""

EIGHT_BITS = 127
"""The largest quantised value."""


class Resting(Protocol):
    """One tensor at rest."""

    shown: Tensor
    """What its module holds while the tensor is at rest."""

    def fetched(self, device: torch.device) -> Tensor:
        """The tensor on a device, ready to compute with.

        Raises:
            CompositionError: `stale-placement`; RunError: `file-changed`.
        """


class InMemory:
    """A tensor in the memory of some device; on that device, fetching returns the tensor itself."""

    def __init__(self, tensor: Tensor) -> None:
        self.shown, self._version = tensor, version(tensor)

    def fetched(self, device: torch.device) -> Tensor:
        check_unwritten(self.shown, self._version)
        return self.shown.to(device, non_blocking=self.shown.device.type == "cpu" and self.shown.is_pinned())


class InFile:
    """A tensor in a mapped file, which need not be in memory; each fetch reads it into new memory.

    The new memory has the alignment of the mapped tensor: with another alignment, kernels may round differently.
    """

    def __init__(self, tensor: Tensor, file: MappedFile, offset: int) -> None:
        self.shown, self._version = tensor, version(tensor)
        self._file, self._offset = file, offset

    def fetched(self, device: torch.device) -> Tensor:
        check_unwritten(self.shown, self._version)
        if (what := self._file.problem([self.shown])) is not None:
            what = f"weights are read from this file when they are used, and it has changed: {what}"
            raise RunError("file-changed", what, where=str(self._file.path), fits="load it again")
        if not self.shown.numel():
            return self.shown.to(device)
        raw = own_pages(self.shown.nbytes, self.shown.data_ptr() % ALIGNMENT)
        return self._file.fill(raw, self._offset).view(self.shown.dtype).view(self.shown.shape).to(device)


class EightBit:
    """A weight (outputs, inputs) as 8-bit integers and one float32 scale per output.

    The error of a weight is at most half a step: 1/254 of the largest magnitude in its row.
    """

    def __init__(self, values: Resting, scales: Tensor, dtype: torch.dtype) -> None:
        self._values, self._scales, self._dtype = values, scales, dtype
        self.shown = torch.empty(values.shown.shape, dtype=dtype, device="meta")

    def fetched(self, device: torch.device) -> Tensor:
        return (self._values.fetched(device).float() * self._scales.to(device)).to(self._dtype)


def eight_bits(weight: Tensor) -> tuple[Tensor, Tensor]:
    """Quantise a weight: int8 (outputs, inputs) and float32 scales (outputs, 1), whose product approximates it."""
    wide = weight.detach().float()
    largest = wide.abs().amax(1, keepdim=True)
    scales = torch.where(largest > 0, largest / EIGHT_BITS, torch.ones_like(largest))
    return (wide / scales).round_().clamp_(-EIGHT_BITS, EIGHT_BITS).to(torch.int8), scales


def own_pages(count: int, lead: int) -> Tensor:
    """uint8 (count,) that starts `lead` bytes after a multiple of `ALIGNMENT`, in its own memory pages.

    They are returned to the system with the tensor, whereas the C library's allocator might keep them.
    """
    return torch.frombuffer(mmap.mmap(-1, count + lead), dtype=torch.uint8)[lead:]


def on_disk(tensors: Mapping[int, Tensor], files: Collection[MappedFile]) -> dict[int, Resting]:
    """Rest tensors in the files that they are mapped from, or else in a temporary file that is deleted with them.

    A mapped tensor that has been modified, in whatever way, no longer matches its file and goes to the temporary one.
    """
    found: dict[int, Resting] = {}
    for key, tensor in tensors.items():
        file, offset = next(((f, o) for f in files if (o := f.offset(tensor)) is not None), (None, None))
        if file is not None and offset is not None and _is_in(file, offset, tensor):
            found[key] = InFile(tensor, file, offset)
        elif not tensor.is_contiguous():  # a file would not keep its order in memory, by which kernels are chosen
            found[key] = InMemory(tensor)
    return found | _in_temporary_file({key: t for key, t in tensors.items() if key not in found})


def _in_temporary_file(tensors: Mapping[int, Tensor]) -> dict[int, Resting]:
    if not tensors:
        return {}
    found: dict[int, Resting] = {}
    with tempfile.TemporaryDirectory(prefix="ldmkit-", ignore_cleanup_errors=True) as folder, noting_files() as files:
        path = Path(folder) / "weights.safetensors"
        write_safetensors(path, {str(key): tensor for key, tensor in tensors.items()})
        mapped = {int(key): lazy.read(False) for key, lazy in open_safetensors(path).items()}
    for key, tensor in mapped.items():  # the file is unlinked, but exists until its last mapping is gone
        ((file, offset),) = [(f, o) for f in files if (o := f.offset(tensor)) is not None]
        found[key] = InFile(tensor, file, offset)
    return found


def _is_in(file: MappedFile, offset: int, tensor: Tensor) -> bool:
    """Whether a mapped tensor still equals the bytes of its file; releases its pages."""
    own = tensor.detach().reshape(-1).view(torch.uint8)
    for start in range(0, own.numel(), CHUNK):
        part = own[start : start + CHUNK]
        if not torch.equal(part, file.read(offset + start, part.numel())):
            return False
    _release_pages(own)
    return True


def _release_pages(mapped: Tensor) -> None:
    """Tell the system that unmodified mapped pages are not needed now; accessing them reads them again."""
    if not sys.platform.startswith("linux"):
        return
    first = -(-mapped.data_ptr() // mmap.PAGESIZE) * mmap.PAGESIZE
    last = (mapped.data_ptr() + mapped.numel()) // mmap.PAGESIZE * mmap.PAGESIZE
    if last > first:
        ctypes.CDLL(None).madvise(ctypes.c_void_p(first), ctypes.c_size_t(last - first), mmap.MADV_DONTNEED)


def version(tensor: Tensor) -> int:
    """A counter that increases when a tensor is written to in place."""
    return 0 if tensor.is_inference() else tensor._version


def check_unwritten(tensor: Tensor, before: int) -> None:
    """Refuse resting weights that were written to: a fetch would return the old ones.

    Raises:
        CompositionError: `stale-placement`.
    """
    if version(tensor) != before:
        what = "weights were written to after the placement was made"
        fits = "change them first, then pipeline.placed(...)"
        raise CompositionError("stale-placement", what, where="placement", fits=fits)
