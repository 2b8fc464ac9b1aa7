"""Unconverted sample values of map files: 8-bit and 16-bit levels, floats, NumPy arrays."""

from __future__ import annotations

import io
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from ldmkit.errors import InputError
from ldmkit.files.picture_files import (
    ORIENTATION,
    Opened,
    decoders,
    file_bytes,
    is_npy,
    npy_array,
    open_picture,
)

_BITS, _PHOTOMETRIC, _SAMPLES = 258, 262, 339
"""TIFF tags."""
_WHITE_IS_ZERO, _UNSIGNED = 0, 1
_EXACT = ("PNG", "TIFF")
"""Formats whose integers Pillow returns unchanged."""
_TIFFS = (b"II*\0", b"MM\0*")
_NPY = "an array saved by np.save, a 16-bit PNG or a float TIFF"


class Samples(NamedTuple):
    """Values (H, W[, channels]); their name in errors; full scale of the levels, None: follows from the dtype."""

    values: np.ndarray[Any, Any]
    where: str | None
    full_scale: int | None


class Header(NamedTuple):
    """What is lost in decoding: the format, Pillow's raw mode (how samples are stored), whether the picture is stored
    upright, and why decoded numbers would differ from those in the file, if they would.
    """

    format: str | None
    raw: str
    upright: bool
    problem: str | None


def read_samples(source: object, where: str | None, channels: int, integers: str) -> Samples:
    """Read the values of a path, file bytes, a data URI or a PIL image.

    Raises:
        InputError: `picture-*`: it cannot be read, or not without changing its values.
    """
    if isinstance(source, Image.Image):
        return _from_picture(open_picture(source, where), _header(source), channels, integers)
    data, where = file_bytes(source, where)
    if is_npy(data):
        return Samples(npy_array(data, where), where, None)
    if data[:4] == b"PK\x03\x04":
        raise InputError("picture-unreadable", "an archive (.npz?), not a map", where=where, fits=_NPY)
    try:
        header = _header(Image.open(io.BytesIO(data), formats=decoders()))
    except Exception:  # `open_picture` raises the full explanation
        if data[:4] in _TIFFS:
            what = "a TIFF that Pillow cannot read (64-bit floats, several float channels ...)"
            raise InputError("picture-unreadable", what, where=where, fits=_NPY) from None
        header = Header(None, "", True, None)
    return _from_picture(open_picture(data, where), header, channels, integers)


def full_scale_of(array: np.ndarray[Any, Any], where: str | None) -> int:
    """The full-scale level of an integer array.

    Raises:
        InputError: `picture-dtype`: its dtype does not determine one.
    """
    if array.dtype.kind == "b":
        return 1
    if array.dtype.kind == "u" and array.dtype.itemsize <= 2:
        return int(np.iinfo(array.dtype).max)
    fits = "uint8, uint16, floats, or a ValueMap with integers='values'"
    raise InputError("picture-dtype", f"{array.dtype} levels have no known full scale", where=where, fits=fits)


def _from_picture(opened: Opened, header: Header, channels: int, integers: str) -> Samples:
    image, where, _ = opened
    _check_header(header, where, channels, integers)
    if "transparency" in image.info or image.mode in ("LA", "La", "PA", "RGBA", "RGBa"):
        image = _opaque(image, where)
    if image.mode == "P":
        image = image.convert("RGB")
    if image.mode == "1" and integers == "scaled":
        return Samples(np.asarray(image), where, None)
    if image.mode == "I" and integers == "scaled":
        return Samples(np.asarray(image), where, _wide_full_scale(header, where))
    if image.mode in ("L", "F", "I") or image.mode.startswith("I;16"):
        return Samples(np.asarray(image), where, None)
    if image.mode != "RGB":
        fits = "greyscale or RGB with 8 or 16 bits per channel, or floats"
        raise InputError("picture-mode", f"a {image.mode} picture is not a map of values", where=where, fits=fits)
    return Samples(_from_rgb(np.asarray(image), where, channels), where, None)


def _from_rgb(levels: np.ndarray[Any, Any], where: str | None, channels: int) -> np.ndarray[Any, Any]:
    if channels != 1:
        return levels
    if not (levels[..., :1] == levels).all():
        what = "expected one channel, got a colour picture; the colours of a colour map are not values"
        raise InputError("picture-not-grey", what, where=where, fits=f"a greyscale picture; {_NPY}")
    return levels[..., 0]


def _header(image: Image.Image) -> Header:
    tiles = getattr(image, "tile", ())
    args = tiles[0][3] if tiles else ""
    raw = str((args[0] if args else "") if isinstance(args, tuple) else args or "")
    upright = image.getexif().get(ORIENTATION, 1) in (0, 1)
    problem = _tiff_problem(getattr(image, "tag_v2", {}))
    scale = image.info.get("scale", 1.0) if image.format == "PPM" else 1.0
    if scale != 1.0:
        problem = f"its header scales the values by {scale:g}"
    return Header(image.format, raw, upright, problem)


def _tiff_problem(tags: Any) -> str | None:
    """Why Pillow would not return the stored values of a TIFF with these tags; None if it does."""
    bits, sign = (_first(tags.get(tag, default)) for tag, default in ((_BITS, 1), (_SAMPLES, _UNSIGNED)))
    if bits > 8 and tags.get(_PHOTOMETRIC) == _WHITE_IS_ZERO:
        return "its level 0 is white"
    if bits == 8 and sign != _UNSIGNED:
        return "its 8-bit levels are signed"
    if bits == 32 and sign == _UNSIGNED:
        return "its 32-bit levels are unsigned"
    return None


def _first(value: Any) -> int:
    return int(value[0] if isinstance(value, tuple) else value)


def _check_header(header: Header, where: str | None, channels: int, integers: str) -> None:
    """Refuse a file for which Pillow would not return the stored values."""
    problem = header.problem
    if header.raw.startswith(("RGB;16", "RGBA;16", "LA;16", "RGBX;16")):
        problem = "it has 16 bits per channel, and only 8 would be read"
    elif header.raw.startswith("I;12"):
        problem = "it has 12-bit levels"
    elif not header.upright and channels > 1:
        problem = "its EXIF orientation rotates it, which would also have to rotate vector components"
    elif integers == "values" and header.format not in (None, *_EXACT) and header.raw[:2] != "F;":
        problem = f"{header.format} may scale its levels"
    elif integers == "values" and header.raw in ("1", "1;I", "L;2", "L;2I", "L;4", "L;4I", "L;I"):
        problem = "its levels would be scaled to 8 bits"
    if problem is not None:
        raise InputError("picture-levels", f"not readable as values: {problem}", where=where, fits=_NPY)


def _wide_full_scale(header: Header, where: str | None) -> int:
    if header.format in ("PNG", "PPM"):  # 16 bits in Pillow's 32
        return 65535
    what = "32-bit or signed levels have no known full scale"
    raise InputError("picture-levels", what, where=where, fits=f"{_NPY}; or a ValueMap with integers='values'")


def _opaque(image: Image.Image, where: str | None) -> Image.Image:
    fits = "a picture without an alpha channel"
    if "transparency" in image.info and (image.mode == "I" or image.mode.startswith("I;16")):
        raise InputError("picture-alpha", "the map declares a transparent level", where=where, fits=fits)
    rgba = image.convert("RGBA")
    if rgba.getchannel("A").getextrema() != (255, 255):
        raise InputError("picture-alpha", "the map has transparent pixels", where=where, fits=fits)
    return rgba.convert("RGB")
