"""Argument checks shared by all public functions: paths, mappings, parts, dense tensors.

Each returns its argument with a precise type, or raises an `InputError` with the value, its place and what would fit.
Torch is imported only by the checks that need it, so that paths can be checked without importing it.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, TypeVar, get_args

from ldmkit.bounds import MAX_SCALE, MAX_SIDE, MAX_STEPS
from ldmkit.contracts.axes import PICTURE, Axis, Size, wanted_size
from ldmkit.contracts.value import integer
from ldmkit.errors import InputError, raised, shown, suggest
from ldmkit.files.json import check_target
from ldmkit.files.numbers import listed, plain

if TYPE_CHECKING:
    import torch
    from torch import Tensor

T = TypeVar("T")

SEED_LIMIT = 2**64

DtypeName: TypeAlias = Literal["float32", "bfloat16", "float16", "float64"]


def path_of(value: object, where: str) -> Path:
    """A file system path from a string or path object; ~ is expanded to the home folder, as `load` does.

    Raises:
        InputError: `path-type`: not a path; `no-path`: a path that no file can have (empty, a null byte ...).
    """
    if not isinstance(value, (str, os.PathLike)):
        raise InputError("path-type", f"got {shown(value)}", where=where, fits="a path")
    path: Path = guarded(lambda: Path(value), where, "a path")
    if value == "":  # pathlib takes it for the current folder
        raise InputError("no-path", "the path is empty", where=where, fits='a path ("." is the current folder)')
    try:
        path = path.expanduser()
        os.fsencode(path)
        path.lstat() if "\0" in str(path) else path.exists()
    except (OSError, ValueError, TypeError, RuntimeError) as problem:
        raise InputError("no-path", f"not a usable path: {problem}", where=where) from None
    return path


def guarded(make: Callable[[], T], where: str, fits: str | None = None) -> T:
    """The result of `make`, which reads an object of the caller's class (a container, a number).

    Raises:
        InputError: `unreadable`: a method of that object raised an exception.
    """
    try:
        return make()
    except Exception as problem:
        raise InputError("unreadable", f"reading it failed: {raised(problem)}", where=where, fits=fits) from problem


def mapping_of(value: object, where: str, fits: str) -> dict[str, Any]:
    """A mapping with string keys, as a dict; None gives an empty one.

    Raises:
        InputError: `not-a-mapping`, `unreadable`.
    """
    if value is None:
        return {}
    if isinstance(value, Mapping):
        own = guarded(lambda: dict(value), where, fits)
        if all(isinstance(key, str) for key in own):
            return own
    raise InputError("not-a-mapping", f"got {shown(value)}", where=where, fits=fits)


def list_of(value: object, where: str, code: str, fits: str) -> list[Any]:
    """The items of a list, tuple, or one-dimensional array or tensor; strings and unordered collections are refused.

    Raises:
        InputError: `code`, `unreadable`.
    """
    value = listed(value)
    if isinstance(value, Sequence) and not isinstance(value, (str, bytes, bytearray, memoryview)):
        return guarded(lambda: list(value), where, fits)
    raise InputError(code, f"got {shown(value)}", where=where, fits=fits)


def names_of(value: object, where: str) -> frozenset[str]:
    """Names from any collection of strings; a single string is refused because it would be read letter by letter.

    Raises:
        InputError: `names-type`, `unreadable`.
    """
    fits = "a set or list of names"
    if isinstance(value, Iterable) and not isinstance(value, (str, bytes, Mapping)):
        names = guarded(lambda: list(value), where, fits)
        if all(isinstance(name, str) for name in names):
            return frozenset(names)
    raise InputError("names-type", f"got {shown(value)}", where=where, fits=fits)


def instance_of(value: Any, kind: type, where: str) -> Any:
    """`value`, checked to be an instance of `kind`, a class of ldmkit (a part, a process, a source).

    Raises:
        InputError: `wrong-kind`.
    """
    if not isinstance(value, kind):
        article = "an" if kind.__name__[0] in "AEIO" else "a"
        raise InputError("wrong-kind", f"got {shown(value)}", where=where, fits=f"{article} {kind.__name__}")
    return value


def check_callback(value: object, where: str, fits: str) -> None:
    """Refuse a callback that is not callable, before the run starts.

    Raises:
        InputError: `callback-type`.
    """
    if not callable(value):
        raise InputError("callback-type", f"got {shown(value)}", where=where, fits=fits)


def fraction(value: object) -> float | None:
    """A number in [0, 1] of any numeric type, as a float; None for anything else."""
    number = plain(value)
    if isinstance(number, bool) or not isinstance(number, int | float) or not 0 <= number <= 1:
        return None
    return float(number)


def numbers_of(tensor: Tensor, where: str) -> Tensor:
    """`tensor`, checked to be a dense floating-point tensor with data.

    Raises:
        InputError: `tensor-layout`: nested, sparse or on the meta device.
            `tensor-dtype`: complex, quantised or integer.
    """
    fits = "a dense floating-point tensor"
    if tensor.is_nested or tensor.is_meta or not str(tensor.layout).endswith("strided"):
        kind = "nested" if tensor.is_nested else f"{tensor.layout} on the device {tensor.device}"
        raise InputError("tensor-layout", f"a tensor that is {kind}", where=where, fits=fits)
    if tensor.is_quantized or not tensor.is_floating_point():
        raise InputError("tensor-dtype", f"a tensor of {tensor.dtype}", where=where, fits=fits)
    return tensor


def check_steps(steps: object, most: int = MAX_STEPS) -> int:
    """A step count in [1, most]."""
    number = integer(steps)
    if number is None:
        raise InputError("steps-type", f"steps must be an integer, got {shown(steps)}", where="steps")
    if not 1 <= number <= most:
        raise InputError("steps-range", f"{number} steps", where="steps", fits=f"1 <= steps <= {MAX_STEPS}")
    return number


def check_size(size: object, most: int = MAX_SIDE) -> tuple[int, int]:
    """(height, width) in pixels, from a pair, or from one number for a square; each in [1, most]."""
    height, width = check_sides(size, most)
    return height, width


def check_sides(size: object, most: int = MAX_SIDE, axes: Sequence[Axis] = PICTURE) -> Size:
    """One number per axis, from a list, or from one number for a square picture; each in [1, most]."""
    one = integer(size) if len(axes) == 2 else None
    fits = wanted_size(axes)
    given = list_of(size, "size", "size-type", fits) if one is None else [one, one]
    sides = [side for side in map(integer, given) if side is not None]
    if len(given) != len(axes) or len(sides) != len(axes):
        raise InputError("size-type", f"got {shown(size)}", where="size", fits=fits)
    if not all(1 <= side <= most for side in sides):
        raise InputError("size-range", f"got {shown(size)}", where="size", fits=f"sides of 1 to {MAX_SIDE} pixels")
    return tuple(sides)


def check_seed(seed: object, where: str = "seed") -> int:
    """A seed as an int in [0, 2**64).

    Raises:
        InputError: not an integer, or outside 64 bits.
    """
    number = integer(seed)
    if number is None:
        raise InputError("seed-type", f"a seed must be an integer, got {shown(seed)}", where=where)
    if not 0 <= number < SEED_LIMIT:
        raise InputError("seed-range", f"{number} does not fit in 64 bits", where=where, fits="0 <= seed < 2**64")
    return number


def check_scale(scale: float, where: str) -> None:
    """A guidance scale: finite, non-negative and at most `MAX_SCALE`.

    Raises:
        InputError: `guidance-range`.
    """
    if not 0 <= scale <= MAX_SCALE:
        fits = f"a finite scale >= 0, at most {MAX_SCALE:g}"
        raise InputError("guidance-range", f"scale {shown(scale)}", where=where, fits=fits)


def check_png(path: str | Path) -> Path:
    """A path that a PNG can be written to, checked before a long run starts.

    Raises:
        InputError: the path does not end in .png, or its folder does not exist or is not writable.
    """
    path = path_of(path, "path")
    if path.suffix.lower() != ".png":
        fits = "a path ending in .png"
        raise InputError("not-png", "recipes are stored in PNG files only", where=str(path), fits=fits)
    check_target(path)
    return path


def check_device(device: torch.device | str | None, *, meta: bool = False) -> torch.device:
    """A device that this machine has; with `meta=True` also the meta device, which holds no data, for dry runs.

    Raises:
        InputError: `device`.
    """
    import torch

    try:
        chosen = torch.device("cpu" if device is None else device)
    except (RuntimeError, TypeError, ValueError, UnicodeError) as error:
        raise InputError(
            "device", f"{shown(device)} is not a device: {str(error).splitlines()[0]}", where="device"
        ) from None
    count = torch.cuda.device_count()
    usable = {"cpu": True, "cuda": (chosen.index or 0) < count, "mps": torch.backends.mps.is_available()}
    usable["meta"] = meta
    if not usable.get(chosen.type, False):
        fits = f"cpu, or cuda:0 to cuda:{count - 1}" if count else "cpu"
        raise InputError("device", f"this machine has no device {str(chosen)!r}", where="device", fits=fits)
    return chosen


def check_dtype_name(name: str) -> str:
    """The name of a dtype that weights may have, without the prefix `torch.`.

    Raises:
        InputError: `dtype`.
    """
    name, known = name.removeprefix("torch."), get_args(DtypeName)
    if name not in known:
        raise InputError("dtype", f"weights cannot have dtype {name!r}", where="dtype", fits=suggest(name, known))
    return name


def check_dtype(dtype: torch.dtype | str | None) -> torch.dtype | None:
    """A floating-point dtype, from a `torch.dtype` or its name."""
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
    """The device and dtype of a `to` call; a dtype may be the first argument, as in `nn.Module.to`.

    Raises:
        InputError: the machine has no such device, or the dtype is not a floating-point one.
    """
    import torch

    if isinstance(device, torch.dtype):
        device, dtype = None, device
    return None if device is None else check_device(device), check_dtype(dtype)
