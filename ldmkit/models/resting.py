"""Tensors that are not where they are computed with: how each is kept, and how it is fetched."""

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
"""Bytes of a file that are compared at a time."""

EIGHT_BITS = 127
"""The largest of the integers that stand for a row of weights."""


class Resting(Protocol):
    """One tensor at rest."""

    shown: Tensor
    """What its module holds meanwhile."""

    def fetched(self, device: torch.device) -> Tensor:
        """The tensor on a device, to compute with.

        Raises:
            CompositionError: `stale-placement`; RunError: `file-changed`.
        """


class InMemory:
    """A tensor in memory, of whichever device; it is itself what is fetched where that device computes."""

    def __init__(self, tensor: Tensor) -> None:
        self.shown, self._version = tensor, version(tensor)

    def fetched(self, device: torch.device) -> Tensor:
        check_unwritten(self.shown, self._version)
        return self.shown.to(device, non_blocking=self.shown.device.type == "cpu" and self.shown.is_pinned())


class InFile:
    """A tensor that lies in a file, of which nothing need be in memory; each fetch reads it into memory of its own.

    Its bytes start on the same alignment there: kernels may round differently on others.
    """

    def __init__(self, tensor: Tensor, file: MappedFile, offset: int) -> None:
        self.shown, self._version = tensor, version(tensor)
        self._file, self._offset = file, offset

    def fetched(self, device: torch.device) -> Tensor:
        check_unwritten(self.shown, self._version)
        if (what := self._file.problem([self.shown])) is not None:
            what = f"weights that are read at use lie in this file, which has changed: {what}"
            raise RunError("file-changed", what, where=str(self._file.path), fits="load it again")
        if not self.shown.numel():
            return self.shown.to(device)
        raw = own_pages(self.shown.nbytes, self.shown.data_ptr() % ALIGNMENT)
        return self._file.fill(raw, self._offset).view(self.shown.dtype).view(self.shown.shape).to(device)


class EightBit:
    """A weight (outputs, inputs) as 8-bit integers and one float32 scale for each output.

    Each number is off by half a step at most: 1/254 of the largest of its row.
    """

    def __init__(self, values: Resting, scales: Tensor, dtype: torch.dtype) -> None:
        self._values, self._scales, self._dtype = values, scales, dtype
        self.shown = torch.empty(values.shown.shape, dtype=dtype, device="meta")

    def fetched(self, device: torch.device) -> Tensor:
        return (self._values.fetched(device).float() * self._scales.to(device)).to(self._dtype)


def eight_bits(weight: Tensor) -> tuple[Tensor, Tensor]:
    """(int8 (outputs, inputs), float32 (outputs, 1)) whose product is nearest to a weight."""
    wide = weight.detach().float()
    largest = wide.abs().amax(1, keepdim=True)
    scales = torch.where(largest > 0, largest / EIGHT_BITS, torch.ones_like(largest))
    return (wide / scales).round_().clamp_(-EIGHT_BITS, EIGHT_BITS).to(torch.int8), scales


def own_pages(count: int, lead: int) -> Tensor:
    """uint8 (count,) that starts `lead` bytes behind a multiple of `ALIGNMENT`, in pages of its own.

    They go back to the system with the tensor, where the C library might keep them.
    """
    return torch.frombuffer(mmap.mmap(-1, count + lead), dtype=torch.uint8)[lead:]


def on_disk(tensors: Mapping[int, Tensor], files: Collection[MappedFile]) -> dict[int, Resting]:
    """Tensors at rest in files: those that they are mapped from, or else a temporary one that goes when they do.

    A mapped tensor that was written to since, in whatever way, is not what its file says: it goes into the other.
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
    for key, tensor in mapped.items():  # the file's name is gone, the file stays until nobody maps it
        ((file, offset),) = [(f, o) for f in files if (o := f.offset(tensor)) is not None]
        found[key] = InFile(tensor, file, offset)
    return found


def _is_in(file: MappedFile, offset: int, tensor: Tensor) -> bool:
    """Whether a mapped tensor still has the bytes of its file; their pages are given back."""
    own = tensor.detach().reshape(-1).view(torch.uint8)
    for start in range(0, own.numel(), CHUNK):
        part = own[start : start + CHUNK]
        if not torch.equal(part, file.read(offset + start, part.numel())):
            return False
    _give_back(own)
    return True


def _give_back(mapped: Tensor) -> None:
    """Tell the system that pages which are those of their file are not needed now; read again, they come back."""
    if not sys.platform.startswith("linux"):
        return
    first = -(-mapped.data_ptr() // mmap.PAGESIZE) * mmap.PAGESIZE
    last = (mapped.data_ptr() + mapped.numel()) // mmap.PAGESIZE * mmap.PAGESIZE
    if last > first:
        ctypes.CDLL(None).madvise(ctypes.c_void_p(first), ctypes.c_size_t(last - first), mmap.MADV_DONTNEED)


def version(tensor: Tensor) -> int:
    """Rises when a tensor is written to in place."""
    return 0 if tensor.is_inference() else tensor._version


def check_unwritten(tensor: Tensor, before: int) -> None:
    """Refuse weights at rest that were written to: what is fetched would be the old ones.

    Raises:
        CompositionError: `stale-placement`.
    """
    if version(tensor) != before:
        what = "weights were written to after the placement was made"
        fits = "change them first, then pipeline.placed(...)"
        raise CompositionError("stale-placement", what, where="placement", fits=fits)
