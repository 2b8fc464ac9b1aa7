"""Samples of map files as the file has them: levels of 8 and 16 bits, floats, arrays of numpy."""

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
"""Tags of TIFF."""
_WHITE_IS_ZERO, _UNSIGNED = 0, 1
_EXACT = ("PNG", "TIFF")
"""Formats whose integers Pillow gives as they are in the file."""
_TIFFS = (b"II*\0", b"MM\0*")
_NPY = "np.save of an array, a 16-bit PNG, a TIFF of floats"


class Samples(NamedTuple):
    """(H, W[, channels]); what to call it in errors; full scale of its levels, None: its type says."""

    values: np.ndarray[Any, Any]
    where: str | None
    whole: int | None


class Header(NamedTuple):
    """What decoding would no longer tell: the format, how Pillow calls the way samples are stored, whether the picture
    lies as it is shown, and why its numbers would not be those of the file.
    """

    format: str | None
    raw: str
    upright: bool
    problem: str | None


def read_samples(source: object, where: str | None, channels: int, integers: str) -> Samples:
    """The numbers of a path, of file bytes, of a data URI or of a PIL image.

    Raises:
        InputError: `picture-*`: what cannot be read, or not without changing its numbers.
    """
    if isinstance(source, Image.Image):
        return _of_picture(open_picture(source, where), _header(source), channels, integers)
    data, where = file_bytes(source, where)
    if is_npy(data):
        return Samples(npy_array(data, where), where, None)
    if data[:4] == b"PK\x03\x04":
        raise InputError("picture-unreadable", "an archive (.npz?), not a map", where=where, fits=_NPY)
    try:
        header = _header(Image.open(io.BytesIO(data), formats=decoders()))
    except Exception:  # `open_picture` says why, in full
        if data[:4] in _TIFFS:
            what = "a TIFF of a kind that Pillow does not read (64-bit floats, several channels of floats ...)"
            raise InputError("picture-unreadable", what, where=where, fits=_NPY) from None
        header = Header(None, "", True, None)
    return _of_picture(open_picture(data, where), header, channels, integers)


def full_scale_of(array: np.ndarray[Any, Any], where: str | None) -> int:
    """The largest level of an array of integers.

    Raises:
        InputError: `picture-dtype`: it has none.
    """
    if array.dtype.kind == "b":
        return 1
    if array.dtype.kind == "u" and array.dtype.itemsize <= 2:
        return int(np.iinfo(array.dtype).max)
    fits = "uint8, uint16, floats, or a field with integers='values'"
    raise InputError("picture-dtype", f"levels of {array.dtype}, whose full scale is not known", where=where, fits=fits)


def _of_picture(opened: Opened, header: Header, channels: int, integers: str) -> Samples:
    image, where = opened
    _check_header(header, where, channels, integers)
    if "transparency" in image.info or image.mode in ("LA", "La", "PA", "RGBA", "RGBa"):
        image = _opaque(image, where)
    if image.mode == "P":
        image = image.convert("RGB")
    if image.mode == "1" and integers == "scaled":
        return Samples(np.asarray(image), where, None)
    if image.mode == "I" and integers == "scaled":
        return Samples(np.asarray(image), where, _whole_of_wide(header, where))
    if image.mode in ("L", "F", "I") or image.mode.startswith("I;16"):
        return Samples(np.asarray(image), where, None)
    if image.mode != "RGB":
        fits = "grey or RGB, of 8 or 16 bits, or floats"
        raise InputError("picture-mode", f"a {image.mode} picture is no map of values", where=where, fits=fits)
    return Samples(_of_colours(np.asarray(image), where, channels), where, None)


def _of_colours(levels: np.ndarray[Any, Any], where: str | None, channels: int) -> np.ndarray[Any, Any]:
    if channels != 1:
        return levels
    if not (levels[..., :1] == levels).all():
        what = "a colour picture, of which one channel is wanted: colours of a chart are no values"
        raise InputError("picture-not-grey", what, where=where, fits=f"a grey picture; {_NPY}")
    return levels[..., 0]


def _header(image: Image.Image) -> Header:
    tiles = getattr(image, "tile", ())
    args = tiles[0][3] if tiles else ""
    raw = str((args[0] if args else "") if isinstance(args, tuple) else args or "")
    upright = image.getexif().get(ORIENTATION, 1) in (0, 1)
    problem = _tiff_problem(getattr(image, "tag_v2", {}))
    scale = image.info.get("scale", 1.0) if image.format == "PPM" else 1.0
    if scale != 1.0:
        problem = f"its values are to be multiplied by {scale:g}"
    return Header(image.format, raw, upright, problem)


def _tiff_problem(tags: Any) -> str | None:
    """What Pillow does not do, or does not say, as it reads a TIFF of such tags."""
    bits, sign = (_first(tags.get(tag, default)) for tag, default in ((_BITS, 1), (_SAMPLES, _UNSIGNED)))
    if bits > 8 and tags.get(_PHOTOMETRIC) == _WHITE_IS_ZERO:
        return "white is 0 in it"
    if bits == 8 and sign != _UNSIGNED:
        return "its 8 bits are signed"
    if bits == 32 and sign == _UNSIGNED:
        return "its 32 bits are unsigned"
    return None


def _first(value: Any) -> int:
    return int(value[0] if isinstance(value, tuple) else value)


def _check_header(header: Header, where: str | None, channels: int, integers: str) -> None:
    """Whether Pillow gives the numbers that are in the file."""
    problem = header.problem
    if header.raw.startswith(("RGB;16", "RGBA;16", "LA;16", "RGBX;16")):
        problem = "it has 16 bits a channel, of which 8 would be read"
    elif header.raw.startswith("I;12"):
        problem = "its levels have 12 bits"
    elif not header.upright and channels > 1:
        problem = "its EXIF orientation turns it, and components would have to be turned too"
    elif integers == "values" and header.format not in (None, *_EXACT) and header.raw[:2] != "F;":
        problem = f"{header.format} may scale its levels"
    elif integers == "values" and header.raw in ("1", "1;I", "L;2", "L;2I", "L;4", "L;4I", "L;I"):
        problem = "its levels would be scaled to 8 bits"
    if problem is not None:
        raise InputError("picture-levels", f"not readable as values: {problem}", where=where, fits=_NPY)


def _whole_of_wide(header: Header, where: str | None) -> int:
    if header.format in ("PNG", "PPM"):  # 16 bits in Pillow's 32
        return 65535
    what = "levels of 32 bits, or signed ones, whose full scale is not known"
    raise InputError("picture-levels", what, where=where, fits=f"{_NPY}; or a field with integers='values'")


def _opaque(image: Image.Image, where: str | None) -> Image.Image:
    fits = "a picture without an alpha channel"
    if "transparency" in image.info and (image.mode == "I" or image.mode.startswith("I;16")):
        raise InputError("picture-alpha", "a level of the map is transparent", where=where, fits=fits)
    rgba = image.convert("RGBA")
    if rgba.getchannel("A").getextrema() != (255, 255):
        raise InputError("picture-alpha", "the map is transparent in places", where=where, fits=fits)
    return rgba.convert("RGB")
