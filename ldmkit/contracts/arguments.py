"""Checks of what a caller passes that every public function shares: paths, mappings, parts, dense tensors.

Each returns the value it was given, typed, or raises an `InputError` that says what came, where, and what fits.
Torch is imported by those that ask it something: paths are checked before it is there.
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
    """A path of the file system, from text or a path; ~ is the home folder, as it is to `load`.

    Raises:
        InputError: `path-type`: something else; `no-path`: no system has such a path.
    """
    if not isinstance(value, (str, os.PathLike)):
        raise InputError("path-type", f"got {shown(value)}", where=where, fits="a path")
    path: Path = taken(lambda: Path(value), where, "a path")
    if value == "":  # pathlib takes it for the current folder
        raise InputError("no-path", "the path is empty", where=where, fits='a path ("." is the current folder)')
    try:
        path = path.expanduser()
        os.fsencode(path)
        path.lstat() if "\0" in str(path) else path.exists()
    except (OSError, ValueError, TypeError, RuntimeError) as problem:
        raise InputError("no-path", f"it is no usable path: {problem}", where=where) from None
    return path


def taken(make: Callable[[], T], where: str, fits: str | None = None) -> T:
    """What a caller's own container, or number, gives when it is read.

    Raises:
        InputError: `unreadable`: its methods fail, which is nobody's fault but its own.
    """
    try:
        return make()
    except Exception as problem:
        raise InputError("unreadable", f"reading it failed: {raised(problem)}", where=where, fits=fits) from problem


def mapping_of(value: object, where: str, fits: str) -> dict[str, Any]:
    """A mapping with text for keys, as a dict; None is an empty one.

    Raises:
        InputError: `not-a-mapping`, `unreadable`.
    """
    if value is None:
        return {}
    if isinstance(value, Mapping):
        own = taken(lambda: dict(value), where, fits)
        if all(isinstance(key, str) for key in own):
            return own
    raise InputError("not-a-mapping", f"got {shown(value)}", where=where, fits=fits)


def list_of(value: object, where: str, code: str, fits: str) -> list[Any]:
    """The items of a list or tuple, or of an array or tensor with one axis: not of a text, nor of what has no order.

    Raises:
        InputError: `code`, `unreadable`.
    """
    value = listed(value)
    if isinstance(value, Sequence) and not isinstance(value, (str, bytes, bytearray, memoryview)):
        return taken(lambda: list(value), where, fits)
    raise InputError(code, f"got {shown(value)}", where=where, fits=fits)


def names_of(value: object, where: str) -> frozenset[str]:
    """Names, in any collection of texts; a text alone would be taken for its letters.

    Raises:
        InputError: `names-type`, `unreadable`.
    """
    fits = "a set or list of names"
    if isinstance(value, Iterable) and not isinstance(value, (str, bytes, Mapping)):
        names = taken(lambda: list(value), where, fits)
        if all(isinstance(name, str) for name in names):
            return frozenset(names)
    raise InputError("names-type", f"got {shown(value)}", where=where, fits=fits)


def instance_of(value: Any, kind: type, where: str) -> Any:
    """A value of a class of ldmkit's: a part, a process, a source.

    Raises:
        InputError: `wrong-kind`.
    """
    if not isinstance(value, kind):
        article = "an" if kind.__name__[0] in "AEIO" else "a"
        raise InputError("wrong-kind", f"got {shown(value)}", where=where, fits=f"{article} {kind.__name__}")
    return value


def check_callback(value: object, where: str, fits: str) -> None:
    """Refuse a callback that cannot be called; asked before the work begins, not after its first step.

    Raises:
        InputError: `callback-type`.
    """
    if not callable(value):
        raise InputError("callback-type", f"got {shown(value)}", where=where, fits=fits)


def fraction(value: object) -> float | None:
    """A number in [0, 1], of Python or any library, as a float; None for anything else."""
    number = plain(value)
    if isinstance(number, bool) or not isinstance(number, int | float) or not 0 <= number <= 1:
        return None
    return float(number)


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


def check_steps(steps: object, most: int = MAX_STEPS) -> int:
    """A step count in [1, most]."""
    number = integer(steps)
    if number is None:
        raise InputError("steps-type", f"steps is an integer, got {shown(steps)}", where="steps")
    if not 1 <= number <= most:
        raise InputError("steps-range", f"{number} steps", where="steps", fits=f"1 <= steps <= {MAX_STEPS}")
    return number


def check_size(size: object, most: int = MAX_SIDE) -> tuple[int, int]:
    """(height, width) in pixels, from a pair or one number for a square; sides in [1, most]."""
    height, width = check_sides(size, most)
    return height, width


def check_sides(size: object, most: int = MAX_SIDE, axes: Sequence[Axis] = PICTURE) -> Size:
    """One number an axis, from a list of them, or one number for a square picture; each in [1, most]."""
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
        raise InputError("seed-type", f"a seed is an integer, got {shown(seed)}", where=where)
    if not 0 <= number < SEED_LIMIT:
        raise InputError("seed-range", f"{number} is outside 64 bits", where=where, fits="0 <= seed < 2**64")
    return number


def check_scale(scale: float, where: str) -> None:
    """A scale of guidance: finite, and of a size that float32 carries.

    Raises:
        InputError: `guidance-range`.
    """
    if not 0 <= scale <= MAX_SCALE:
        fits = f"a finite scale >= 0, at most {MAX_SCALE:g}"
        raise InputError("guidance-range", f"scale {shown(scale)}", where=where, fits=fits)


def check_png(path: str | Path) -> Path:
    """A path that a PNG can be written to; asked before a long run, not after it.

    Raises:
        InputError: not a .png path, or its folder does not exist or takes no files.
    """
    path = path_of(path, "path")
    if path.suffix.lower() != ".png":
        fits = "a path ending in .png"
        raise InputError("not-png", "the recipe travels in PNG files only", where=str(path), fits=fits)
    check_target(path)
    return path


def check_device(device: torch.device | str | None, *, meta: bool = False) -> torch.device:
    """A device that this machine has, or (`meta`) the one without numbers, for rehearsals.

    Raises:
        InputError: `device`.
    """
    import torch

    try:
        chosen = torch.device("cpu" if device is None else device)
    except (RuntimeError, TypeError, ValueError, UnicodeError) as error:
        raise InputError(
            "device", f"{shown(device)} is no device: {str(error).splitlines()[0]}", where="device"
        ) from None
    count = torch.cuda.device_count()
    usable = {"cpu": True, "cuda": (chosen.index or 0) < count, "mps": torch.backends.mps.is_available()}
    usable["meta"] = meta
    if not usable.get(chosen.type, False):
        fits = f"cpu, or cuda:0 to cuda:{count - 1}" if count else "cpu"
        raise InputError("device", f"this machine has no device {str(chosen)!r}", where="device", fits=fits)
    return chosen


def check_dtype_name(name: str) -> str:
    """The name of a dtype that weights can have, without the prefix `torch.`.

    Raises:
        InputError: `dtype`.
    """
    name, known = name.removeprefix("torch."), get_args(DtypeName)
    if name not in known:
        raise InputError("dtype", f"{name!r} is no dtype for weights", where="dtype", fits=suggest(name, known))
    return name


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
