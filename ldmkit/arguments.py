"""Checks of what a caller passes that every public function shares: paths, mappings, parts, dense tensors.

Each returns the value it was given, typed, or raises an `InputError` that says what came, where, and what fits.
Torch is imported by those that ask it something: paths are checked before it is there.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ldmkit.errors import InputError, shown
from ldmkit.spec import check_dtype_name

if TYPE_CHECKING:
    import torch
    from torch import Tensor


def path_of(value: object, where: str) -> Path:
    """A path of the file system, from text or a path.

    Raises:
        InputError: `path-type`: something else; `no-path`: no system has such a path.
    """
    if not isinstance(value, (str, os.PathLike)):
        raise InputError("path-type", f"got {shown(value)}", where=where, fits="a path")
    try:
        path = Path(value)
        os.fsencode(path)
        path.lstat() if "\0" in str(path) else path.exists()
    except (OSError, ValueError, TypeError) as problem:
        raise InputError("no-path", f"it is no usable path: {problem}", where=where) from None
    return path


def mapping_of(value: object, where: str, fits: str) -> dict[str, Any]:
    """A mapping with text for keys, as a dict; None is an empty one.

    Raises:
        InputError: `not-a-mapping`.
    """
    if value is None:
        return {}
    if not isinstance(value, Mapping) or not all(isinstance(key, str) for key in value):
        raise InputError("not-a-mapping", f"got {shown(value)}", where=where, fits=fits)
    return dict(value)


def instance_of(value: Any, kind: type, where: str) -> Any:
    """A value of a class of ldmkit's: a part, a process, a source.

    Raises:
        InputError: `wrong-kind`.
    """
    if not isinstance(value, kind):
        article = "an" if kind.__name__[0] in "AEIO" else "a"
        raise InputError("wrong-kind", f"got {shown(value)}", where=where, fits=f"{article} {kind.__name__}")
    return value


def numbers_of(tensor: Tensor, where: str) -> Tensor:
    """A dense tensor of floats with its numbers in memory.

    Raises:
        InputError: `tensor-layout`: nested, sparse or on the meta device.
            `tensor-dtype`: complex, quantised or integers.
    """
    fits = "a dense tensor of floats"
    if tensor.is_nested or tensor.is_meta or not str(tensor.layout).endswith("strided"):
        kind = "nested" if tensor.is_nested else f"{tensor.layout} on the device {tensor.device}"
        raise InputError("tensor-layout", f"a tensor that is {kind}", where=where, fits=fits)
    if tensor.is_quantized or not tensor.is_floating_point():
        raise InputError("tensor-dtype", f"a tensor of {tensor.dtype}", where=where, fits=fits)
    return tensor


def check_device(device: torch.device | str | None) -> torch.device:
    """A device that this machine has."""
    import torch

    try:
        chosen = torch.device("cpu" if device is None else device)
    except (RuntimeError, TypeError, ValueError, UnicodeError) as error:
        raise InputError(
            "device", f"{shown(device)} is no device: {str(error).splitlines()[0]}", where="device"
        ) from None
    count = torch.cuda.device_count()
    usable = {"cpu": True, "cuda": (chosen.index or 0) < count, "mps": torch.backends.mps.is_available()}
    if not usable.get(chosen.type, False):
        fits = f"cpu, or cuda:0 to cuda:{count - 1}" if count else "cpu"
        raise InputError("device", f"this machine has no device {str(chosen)!r}", where="device", fits=fits)
    return chosen


def check_dtype(dtype: torch.dtype | str | None) -> torch.dtype | None:
    """A floating dtype, from torch or by name."""
    import torch

    if dtype is None:
        return None
    if not isinstance(dtype, (str, torch.dtype)):
        raise InputError("dtype-type", f"got {shown(dtype)}", where="dtype", fits="a torch.dtype, or its name")
    found: torch.dtype = getattr(torch, check_dtype_name(str(dtype)))
    return found


def destination(
    device: torch.device | str | torch.dtype | None, dtype: torch.dtype | None
) -> tuple[torch.device | None, torch.dtype | None]:
    """Where to move a pipeline and what to convert it to; a dtype may come first, as `nn.Module.to` has it.

    Raises:
        InputError: no device of this machine, or no floating dtype.
    """
    import torch

    if isinstance(device, torch.dtype):
        device, dtype = None, device
    return None if device is None else check_device(device), check_dtype(dtype)
