"""Lazy reading of tensors from files, and assignment to modules."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import reduce
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from ldmkit.errors import SourceError, WeightsError
from ldmkit.files.json import parse_json, replacing
from ldmkit.files.reading import check_ordinary
from ldmkit.models.mapped import MappedFile, filling
from ldmkit.models.tying import check_tied, tie, tied_names
from ldmkit.printable import first_few

DTYPES: dict[str, torch.dtype] = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U8": torch.uint8,
    "BOOL": torch.bool,
    "F8_E4M3": torch.float8_e4m3fn,
    "F8_E5M2": torch.float8_e5m2,
}

FLOATS = (torch.float64, torch.float32, torch.float16, torch.bfloat16)

_DTYPE_NAMES = {dtype: name for name, dtype in DTYPES.items()}

ALIGNMENT = 64
"""Alignment in bytes of tensors in files written by ldmkit; CPU kernels may round differently at other alignments."""

MAPPED_ALIGNMENT = 16
"""Minimum alignment in bytes of a memory-mapped tensor; tensors with a smaller one are copied."""

MAX_HEADER_BYTES = 100_000_000
MAX_TENSORS = 200_000
"""Tensors per file, a hundred times those of the largest published model in this field."""


@dataclass(frozen=True)
class LazyTensor:
    """A tensor that has not been read from its file.

    `read(copy)` returns it: memory-mapped if possible if copy is False; a copy if True, so that no page of the file
    stays resident after a conversion.
    """

    shape: tuple[int, ...]
    dtype: torch.dtype
    read: Callable[[bool], Tensor]

    @staticmethod
    def of(tensor: Tensor) -> LazyTensor:
        """Wrap a tensor that is already in memory."""
        return LazyTensor(tuple(tensor.shape), tensor.dtype, lambda copy: tensor.clone() if copy else tensor)


def open_safetensors(path: Path) -> dict[str, LazyTensor]:
    """The tensors of a safetensors file. The header is checked; no tensor is read.

    Raises:
        SourceError: missing, truncated, oversized or damaged file, duplicate keys, unknown dtype.
    """
    header, start = _header(path)
    try:
        file = MappedFile(path)
        mapped = safe_open(str(path), framework="pt")
    except (SafetensorError, OSError) as error:
        raise _damaged(header, start, path, error) from None
    found: dict[str, LazyTensor] = {}
    for key, info in header.items():
        if key == "__metadata__":
            continue
        if info["dtype"] not in DTYPES:
            raise SourceError("unknown-dtype", f"tensor {key!r} has dtype {info['dtype']!r}", where=str(path))
        shape, dtype = tuple(info["shape"]), DTYPES[info["dtype"]]
        begin, end = info["data_offsets"]

        def read(
            copy: bool,
            key: str = key,
            shape: tuple[int, ...] = shape,
            dtype: torch.dtype = dtype,
            span: tuple[int, int] = (start + begin, end - begin),
        ) -> Tensor:
            if copy:
                return file.read(*span).view(dtype).view(shape)
            return file.holds(mapped.get_tensor(key), span[0])  # type: ignore[no-untyped-call]

        found[key] = LazyTensor(shape, dtype, read)
    return found


def _damaged(header: Mapping[str, Any], start: int, path: Path, error: Exception) -> SourceError:
    """The error for a damaged file: truncated, judged by its length, or else the message of safetensors."""
    spans = [info["data_offsets"] for key, info in header.items() if key != "__metadata__"]
    ends = [span[1] for span in spans if isinstance(span, list) and len(span) == 2 and type(span[1]) is int]
    needs, has = start + max(ends, default=0), path.stat().st_size
    if needs > has:
        what = f"truncated: according to its header it needs {needs} bytes, but it has {has}"
        return SourceError("truncated", what, where=str(path), fits="the complete file; the download may be incomplete")
    return SourceError("safetensors-invalid", f"damaged file: {error}", where=str(path))


def _header(path: Path) -> tuple[dict[str, Any], int]:
    where = str(path)
    size = check_ordinary(path).st_size
    with path.open("rb") as file:
        prefix = file.read(8)
        if len(prefix) < 8:
            raise SourceError("truncated", f"{size} bytes are too few for a safetensors file", where=where)
        (length,) = struct.unpack("<Q", prefix)
        if length > min(MAX_HEADER_BYTES, size - 8):
            what = f"the header claims {length} bytes, but the file has {size}"
            raise SourceError("truncated", what, where=where, fits="a complete safetensors file")
        header = parse_json(file.read(length), where)
    if not isinstance(header, dict):
        raise SourceError("safetensors-invalid", "the header is not a JSON object", where=where)
    if len(header) > MAX_TENSORS:
        what = f"the header lists {len(header)} tensors"
        raise SourceError("too-large", what, where=where, fits=f"at most {MAX_TENSORS}")
    for key, info in header.items():
        if key != "__metadata__" and not (isinstance(info, dict) and {"dtype", "shape", "data_offsets"} <= info.keys()):
            raise SourceError("safetensors-invalid", f"the header entry of {key!r} is incomplete", where=where)
    return header, 8 + length


def write_safetensors(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str] | None = None) -> None:
    """Write a safetensors file atomically; an existing file is replaced once the new one is complete.

    Tensors whose size is a multiple of `ALIGNMENT` come first, so that nearly all tensors can be memory-mapped.

    Raises:
        WeightsError: `unknown-dtype`: complex numbers, quantised integers ...
    """
    for key, tensor in tensors.items():
        if tensor.dtype not in _DTYPE_NAMES:
            fits = ", ".join(str(dtype).removeprefix("torch.") for dtype in _DTYPE_NAMES)
            raise WeightsError("unknown-dtype", f"{key!r} has dtype {tensor.dtype}", where=str(path), fits=fits)
    own = {key: tensor.detach().cpu().contiguous() for key, tensor in tensors.items()}
    order = sorted(own, key=lambda key: (own[key].nbytes % ALIGNMENT != 0, -own[key].itemsize, key))
    header: dict[str, Any] = {"__metadata__": {"format": "pt", **(metadata or {})}}
    end = 0
    for key in order:
        begin, end = end, end + own[key].nbytes
        shape = list(own[key].shape)
        header[key] = {"dtype": _DTYPE_NAMES[own[key].dtype], "shape": shape, "data_offsets": [begin, end]}
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-(8 + len(text)) % ALIGNMENT)
    with replacing(path) as temporary, temporary.open("wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for key in order:
            file.write(own[key].reshape(-1).view(torch.uint8).numpy().data)


def read_metadata(path: Path) -> dict[str, str]:
    """The free-form metadata of a safetensors file."""
    header, _ = _header(path)
    return {str(k): v if isinstance(v, str) else json.dumps(v) for k, v in header.get("__metadata__", {}).items()}


def assign(
    module: nn.Module,
    tensors: Mapping[str, LazyTensor],
    where: str,
    *,
    device: torch.device | str = "cpu",
    dtype: torch.dtype | None = None,
    mapped: bool = True,
) -> None:
    """Load tensors one by one into a module built on the meta device, converting them if needed. Strict: keys must
    match exactly.

    Args:
        module: on the meta device.
        tensors: native key -> tensor; nothing is read before all keys, shapes and dtypes have been checked.
        where: name of the part, for errors.
        dtype: dtype of floating-point tensors; None keeps that of the file, or the widest if it has several.
        mapped: memory-map tensors if dtype, device and alignment permit; False copies all.

    Raises:
        WeightsError: missing or unexpected keys, or shapes or dtypes that do not fit; `tied`: several copies of what is
            one tensor in the module, and different.
    """
    own = check(module, tensors, where)
    device = torch.device(device)
    filled: dict[str, Tensor] = {}
    floats = {lazy.dtype for lazy in tensors.values() if lazy.dtype.is_floating_point}
    if dtype is None and len(floats) > 1:  # layers of a network must have one dtype, and widening is lossless
        dtype = reduce(torch.promote_types, floats)
    held: Callable[[torch.dtype], torch.dtype] = getattr(module, "held_dtype", lambda dtype: dtype)
    with filling(module):
        for key in own:
            lazy = tensors[key]
            wanted = held(dtype or lazy.dtype) if lazy.dtype.is_floating_point else lazy.dtype
            copied = not mapped or wanted != lazy.dtype or device.type != "cpu"
            filled[key] = (lazy.read(True) if copied else _read_mapped(lazy)).to(device=device, dtype=wanted)
        tied = tied_names(module)
        check_tied(tied, filled, where)
        module.load_state_dict(filled, strict=True, assign=True)
        tie(module, tied)
    left = [name for name, t in (*module.named_parameters(), *module.named_buffers()) if t.is_meta]
    if left:
        raise WeightsError("uninitialised", f"no value for {first_few(left)}", where=where)


def _read_mapped(lazy: LazyTensor) -> Tensor:
    """The tensor, memory-mapped, or copied if misaligned."""
    tensor = lazy.read(False)
    return tensor if tensor.data_ptr() % MAPPED_ALIGNMENT == 0 else lazy.read(True)


def check(module: nn.Module, tensors: Mapping[str, LazyTensor], where: str) -> dict[str, Tensor]:
    """The module's state, whose keys, shapes and dtypes a file has; raises the errors of `assign`."""
    wanted = module.state_dict()
    missing = [key for key in wanted if key not in tensors]
    if missing:
        raise WeightsError("missing", f"{len(missing)} tensor(s) are missing: {first_few(missing)}", where=where)
    unexpected = [key for key in tensors if key not in wanted]
    if unexpected:
        raise WeightsError(
            "unexpected", f"{len(unexpected)} unexpected tensor(s): {first_few(unexpected)}", where=where
        )
    for key, tensor in wanted.items():
        lazy = tensors[key]
        if lazy.shape != tuple(tensor.shape):
            what = f"{key!r} has shape {list(lazy.shape)}, but the config requires {list(tensor.shape)}"
            raise WeightsError("wrong-shape", what, where=where)
        floats = tensor.dtype.is_floating_point
        if lazy.dtype not in FLOATS if floats else lazy.dtype != tensor.dtype:
            what = f"{key!r} has dtype {lazy.dtype}, but the module has {tensor.dtype}"
            fits = "float64, float32, float16 or bfloat16" if floats else str(tensor.dtype)
            raise WeightsError("wrong-dtype", what, where=where, fits=fits)
    return wanted


def check_finite(module: nn.Module, where: str) -> None:
    """Refuse weights among which are NaN or infinity, which a run would meet in its first step.

    Raises:
        WeightsError: `not-finite`, naming the first tensor.
    """
    for key, tensor in module.state_dict().items():
        if not bool(torch.isfinite(tensor).all()):
            raise WeightsError("not-finite", f"{key!r} holds NaN or infinity", where=where)
