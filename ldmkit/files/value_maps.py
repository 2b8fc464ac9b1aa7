"""Maps of real values aligned with pictures (depth, heat, flow, normals), read from files, arrays and tensors.

`ValueMap` declares such a map; as an annotation it makes a type of raw input:

    Depth: TypeAlias = Annotated[Tensor, ValueMap(low=0.0, high=1.0)]

The meaning of integers depends on the declaration (`integers`); a float is the value itself. Values are never clipped
or normalised, and conversions are never guessed.
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
    """Declares a map of real values aligned with a picture: the range of its values, and how they are read.

    `Annotated[Tensor, ValueMap(...)]` is the type of a raw input, or of a field of one. A parsed map is a tensor
    (channels, H, W) of float32 on the CPU.

    Args:
        channels: number of values per pixel.
        low, high: range of the values. Values outside are an error.
        integers: meaning of integers in files and arrays. "scaled": 0 is `low`, and the largest level of the format
            (255 for 8 bits, 65535 for 16) is `high`. "values": integers are the values (millimetres in a 16-bit PNG).
        mirror: factor for each channel when the picture is mirrored left to right: -1 for components along x (of
            normals, of flow), else 1. None: 1 for a single channel that cannot be negative; otherwise unknown, and
            training refuses to mirror the map.

    Raises:
        SpecError: `value-map`: the declaration contradicts itself.
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
            what = f"a channel that changes sign, in a range from {self.low:g} to {self.high:g}"
            raise _wrong("mirror", what, "low = -high")

    def __str__(self) -> str:
        return f"map of {self.channels} channel(s)"

    @property
    def signs(self) -> tuple[int, ...] | None:
        """Factors for the channels when mirrored; None: not declared."""
        if self.mirror is None and self.channels == 1 and self.low >= 0:
            return (1,)
        return self.mirror

    def read(self, source: object, where: str | None = None) -> Tensor:
        """Read a map as a float32 tensor (channels, H, W) on the CPU.

        Args:
            source: path, file bytes, data URI or PIL image (8-bit or 16-bit PNG, 8-bit, 16-bit, 32-bit or float TIFF,
                PFM, .npy, and other 8-bit pictures); array (H, W[, channels]) of numbers; nested lists of numbers; or
                tensor ([channels,] H, W) of floats.
            where: name of the map in errors; files are named by their paths.

        Raises:
            InputError: `picture-*`: the file does not exist, is damaged or too large; the number of channels is not as
                declared; the full scale of levels is unknown; NaN or infinities; values outside [low, high].
        """
        if (stored := array_from_uri(source, where)) is not None:
            source = torch.from_numpy(stored.astype(stored.dtype.newbyteorder("=")))
        if isinstance(source, Tensor):
            return self._tensor(dense(source, where).detach().cpu(), where)
        if isinstance(source, np.ndarray):
            return self._array(unmasked(source, where), where)
        if isinstance(source, (list, tuple)):
            return self._array(_rows(source, where), where)
        values, place, full_scale = read_samples(source, where, self.channels, self.integers)
        return self._array(values, place, full_scale)

    def write(self, values: Tensor) -> str:
        """Encode values (channels, H, W) as a data URI from which `read` restores them exactly."""
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

    def _array(self, array: np.ndarray[Any, Any], where: str | None, full_scale: int | None = None) -> Tensor:
        """`full_scale`: of integer levels, if the file determines it; None: follows from the dtype."""
        array = array[..., None] if array.ndim == 2 else array
        if array.ndim != 3 or 0 in array.shape:
            fits = f"(height, width, {self.channels})"
            raise InputError("picture-shape", f"a map of shape {array.shape}", where=where, fits=fits)
        self._check_channels(array.shape[2], where, array.shape[0])
        values = self._values(array, where, full_scale)
        return torch.from_numpy(np.ascontiguousarray(np.moveaxis(self._checked(values, where), -1, 0)))

    def _values(self, array: np.ndarray[Any, Any], where: str | None, full_scale: int | None) -> np.ndarray[Any, Any]:
        if array.dtype.kind == "f":
            return array.astype(np.float64)
        if array.dtype.kind not in "biu":
            raise InputError("picture-dtype", f"a map of {array.dtype}", where=where, fits="floats or integers")
        if self.integers == "values":
            if array.dtype.kind == "b":
                what = "a map of two levels (bool), which are not numbers"
                raise InputError("picture-dtype", what, where=where, fits="floats or integers")
            return array.astype(np.float64)
        scale = full_scale_of(array, where) if full_scale is None else full_scale
        return self.low + array.astype(np.float64) / scale * (self.high - self.low)

    def _check_channels(self, found: int, where: str | None, first: int | None = None) -> None:
        if found == self.channels:
            return
        fits = f"{self.channels} channel(s)"
        if first == self.channels:
            fits += "; the channels of an array are its last axis: np.moveaxis(array, 0, -1)"
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
        description = f"path of a PNG, TIFF or NPY file, or a data URI ({URI_PREFIX}...); {self.channels} channel(s)"
        description += f" with values in [{self.low:g}, {self.high:g}]; integers are {self.integers}"
        return {"type": "string", "format": "value-map", "title": "ValueMap", "description": description}


def value_map_of(kind: Any) -> ValueMap | None:
    """The declaration in an annotated type; None if the type is not a map of values."""
    return next((found for found in getattr(kind, "__metadata__", ()) if isinstance(found, ValueMap)), None)


def _wrong(where: str, what: str, fits: str) -> SpecError:
    return SpecError("value-map", f"a map cannot be declared with {what}", where=f"ValueMap.{where}", fits=fits)


def _rows(source: Sequence[Any], where: str | None) -> np.ndarray[Any, Any]:
    """Nested lists of numbers (from JSON): the values themselves, integers too."""
    try:
        array = np.asarray(plain(source))
        flags = any(isinstance(item, bool) for item in _items(source))  # numpy takes True among numbers for 1
    except (ValueError, TypeError, OverflowError, RecursionError):
        raise InputError("picture-shape", "the rows of a map differ in length", where=where) from None
    except Exception as problem:  # the caller's own sequence type may raise anything
        raise InputError("unreadable", f"reading it failed: {raised(problem)}", where=where) from problem
    if flags or array.dtype.kind not in "iuf":
        raise InputError("picture-dtype", "rows that hold something other than numbers", where=where, fits="numbers")
    return array.astype(np.float64)


def _items(source: Any, depth: int = 3) -> Any:
    if depth and isinstance(source, (list, tuple)):
        for item in source:
            yield from _items(item, depth - 1)
    else:
        yield plain(source)
