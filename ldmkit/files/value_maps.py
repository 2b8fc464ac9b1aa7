"""Maps of real values beside pictures: depth, heat, flow, normals; from files, arrays and tensors to float32.

`ValueMap` declares such a map, and is the annotation that makes a type of raw input of it:

    Depth: TypeAlias = Annotated[Tensor, ValueMap(low=0.0, high=1.0)]

What an integer means depends on the declaration (`integers`); a float is the value itself. Nothing is clipped,
normalised or converted by guess.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from pydantic_core import core_schema
from torch import Tensor

from ldmkit.errors import InputError, SpecError, raised
from ldmkit.files.numbers import plain
from ldmkit.files.picture_files import URI_PREFIX, array_from_uri, array_uri
from ldmkit.files.pictures import EDGE, unmasked
from ldmkit.files.tensors import dense
from ldmkit.files.value_map_files import full_scale_of, read_samples

if TYPE_CHECKING:
    from pydantic import GetCoreSchemaHandler, GetJsonSchemaHandler
    from pydantic.json_schema import JsonSchemaValue

MOST_CHANNELS = 4096


@dataclass(frozen=True)
class ValueMap:
    """A map of real values that lies on a picture: what its numbers may be, and how they are read.

    Put into `Annotated[Tensor, ValueMap(...)]` it makes the type of a raw input (or of a field of one). A parsed map is
    a tensor (channels, H, W), float32, on the CPU.

    Args:
        channels: values a pixel has.
        low, high: range of the values. What lies outside is an error.
        integers: what integers in files and arrays mean. scaled: the level 0 is `low`, and the largest level of the
            format (255 of 8 bits, 65535 of 16) is `high`; values: they are the values (millimetres in a 16-bit PNG).
        mirror: factor of each channel when the picture is mirrored left to right: -1 for components along x (of
            normals, of flow), else 1. None: 1 for a single channel that cannot be negative; otherwise it is not known,
            and training refuses to mirror the map.

    Raises:
        SpecError: `value-map`: a declaration that contradicts itself.
    """

    channels: int = 1
    low: float = 0.0
    high: float = 1.0
    integers: Literal["scaled", "values"] = "scaled"
    mirror: tuple[int, ...] | None = None

    def __post_init__(self) -> None:
        if type(self.channels) is not int or not 1 <= self.channels <= MOST_CHANNELS:
            raise _wrong("channels", f"{self.channels!r}", f"1 to {MOST_CHANNELS}")
        if not (math.isfinite(self.low) and math.isfinite(self.high) and self.low < self.high):
            raise _wrong("low", f"a range from {self.low} to {self.high}", "finite numbers, low < high")
        if self.integers not in ("scaled", "values"):
            raise _wrong("integers", f"{self.integers!r}", "scaled or values")
        if self.mirror is None:
            return
        if len(self.mirror) != self.channels or not set(self.mirror) <= {-1, 1}:
            raise _wrong("mirror", f"{self.mirror!r}", f"{self.channels} factor(s), each -1 or 1")
        if -1 in self.mirror and self.low != -self.high:
            what = f"a component that changes its sign, in a range from {self.low:g} to {self.high:g}"
            raise _wrong("mirror", what, "low = -high")

    def __str__(self) -> str:
        return f"map of {self.channels} value(s)"

    @property
    def signs(self) -> tuple[int, ...] | None:
        """Factors of the channels under a mirror; None: it is not declared what a mirror does to them."""
        if self.mirror is None and self.channels == 1 and self.low >= 0:
            return (1,)
        return self.mirror

    def read(self, source: object, where: str | None = None) -> Tensor:
        """A map as (channels, H, W) float32, on the CPU.

        Args:
            source: path, file bytes, data URI or PIL image: PNG of 8 or 16 bits, TIFF of 8, 16 or 32 bits (floats too),
                PFM, .npy, and other 8-bit pictures; array (H, W[, channels]) of numbers; rows of numbers; or tensor
                ([channels,] H, W) of floats.
            where: what to call it in errors; files are named by themselves.

        Raises:
            InputError: `picture-*`: no such file, damaged, too large; more or fewer channels than declared; levels
                whose full scale the file does not tell; NaN or infinities; values outside of [low, high].
        """
        if (stored := array_from_uri(source, where)) is not None:
            source = torch.from_numpy(stored.astype(stored.dtype.newbyteorder("=")))
        if isinstance(source, Tensor):
            return self._tensor(dense(source, where).detach().cpu(), where)
        if isinstance(source, np.ndarray):
            return self._array(unmasked(source, where), where)
        if isinstance(source, (list, tuple)):
            return self._array(_rows(source, where), where)
        values, place, whole = read_samples(source, where, self.channels, self.integers)
        return self._array(values, place, whole)

    def write(self, values: Tensor) -> str:
        """A data URI that `read` turns into exactly these values (channels, H, W) again."""
        return array_uri(values.detach().float().cpu().numpy())

    def _tensor(self, values: Tensor, where: str | None) -> Tensor:
        values = values[None] if values.ndim == 2 else values
        if values.ndim != 3 or 0 in values.shape:
            fits = f"({self.channels}, height, width)"
            raise InputError("picture-shape", f"a map of shape {tuple(values.shape)}", where=where, fits=fits)
        self._check_channels(values.shape[0], where)
        if not values.is_floating_point():
            raise InputError("picture-dtype", f"a map of {values.dtype}", where=where, fits="a tensor of floats")
        return torch.from_numpy(self._checked(values.double().numpy(), where))

    def _array(self, array: np.ndarray[Any, Any], where: str | None, whole: int | None = None) -> Tensor:
        """`whole`: full scale of the levels, where the file has told it; None: the type of the array says."""
        array = array[..., None] if array.ndim == 2 else array
        if array.ndim != 3 or 0 in array.shape:
            fits = f"(height, width, {self.channels})"
            raise InputError("picture-shape", f"a map of shape {array.shape}", where=where, fits=fits)
        self._check_channels(array.shape[2], where, array.shape[0])
        values = self._values(array, where, whole)
        return torch.from_numpy(np.ascontiguousarray(np.moveaxis(self._checked(values, where), -1, 0)))

    def _values(self, array: np.ndarray[Any, Any], where: str | None, whole: int | None) -> np.ndarray[Any, Any]:
        if array.dtype.kind == "f":
            return array.astype(np.float64)
        if array.dtype.kind not in "biu":
            raise InputError("picture-dtype", f"a map of {array.dtype}", where=where, fits="floats or integers")
        if self.integers == "values":
            if array.dtype.kind == "b":
                what = "a map of two levels, whose values are not numbers"
                raise InputError("picture-dtype", what, where=where, fits="floats or integers")
            return array.astype(np.float64)
        scale = full_scale_of(array, where) if whole is None else whole
        return self.low + array.astype(np.float64) / scale * (self.high - self.low)

    def _check_channels(self, found: int, where: str | None, first: int | None = None) -> None:
        if found == self.channels:
            return
        fits = f"{self.channels} channel(s)"
        if first == self.channels:
            fits += "; of an array the last axis: np.moveaxis(array, 0, -1)"
        raise InputError("picture-channels", f"a map of {found} channel(s)", where=where, fits=fits)

    def _checked(self, values: np.ndarray[Any, Any], where: str | None) -> np.ndarray[Any, Any]:
        fits = f"values in [{self.low:g}, {self.high:g}]"
        wrong = int(values.size - np.isfinite(values).sum())
        if wrong:
            what = f"{wrong} of {values.size} values are NaN or infinite"
            raise InputError("picture-not-finite", what, where=where, fits=fits)
        least, most = float(values.min()), float(values.max())
        slack = EDGE * max(self.high - self.low, abs(self.low), abs(self.high))  # rounding of float32
        if least < self.low - slack or most > self.high + slack:
            raise InputError("picture-range", f"values from {least:g} to {most:g}", where=where, fits=fits)
        return values.astype(np.float32)

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> core_schema.CoreSchema:
        write = core_schema.plain_serializer_function_ser_schema(
            self.write, return_schema=core_schema.str_schema(), when_used="json"
        )
        return core_schema.no_info_plain_validator_function(self.read, serialization=write)

    def __get_pydantic_json_schema__(
        self, schema: core_schema.CoreSchema, handler: GetJsonSchemaHandler
    ) -> JsonSchemaValue:
        said = f"path of a PNG, TIFF or NPY file, or a data URI ({URI_PREFIX}...); {self.channels} channel(s)"
        said += f" with values from {self.low:g} to {self.high:g}, of integers the {self.integers}"
        return {"type": "string", "format": "value-map", "title": "ValueMap", "description": said}


def value_map_of(kind: Any) -> ValueMap | None:
    """The declaration in an annotated type; None for a type that is no map of values."""
    return next((found for found in getattr(kind, "__metadata__", ()) if isinstance(found, ValueMap)), None)


def _wrong(where: str, what: str, fits: str) -> SpecError:
    return SpecError("value-map", f"a map cannot be declared with {what}", where=f"ValueMap.{where}", fits=fits)


def _rows(source: Sequence[Any], where: str | None) -> np.ndarray[Any, Any]:
    """Rows of numbers, as JSON has them: they are the values, whole or not."""
    try:
        array = np.asarray(plain(source))
        flags = any(isinstance(item, bool) for item in _items(source))  # numpy takes True among numbers for 1
    except (ValueError, TypeError, OverflowError, RecursionError):
        raise InputError("picture-shape", "the rows of a map differ in length", where=where) from None
    except Exception as problem:  # a list of the caller's that fails as it is read
        raise InputError("unreadable", f"reading it failed: {raised(problem)}", where=where) from problem
    if flags or array.dtype.kind not in "iuf":
        raise InputError("picture-dtype", "rows of other things than numbers", where=where, fits="numbers")
    return array.astype(np.float64)


def _items(source: Any, depth: int = 3) -> Any:
    if depth and isinstance(source, (list, tuple)):
        for item in source:
            yield from _items(item, depth - 1)
    else:
        yield plain(source)
