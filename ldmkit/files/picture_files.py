"""Opening picture files safely, and data URIs."""

from __future__ import annotations

import base64
import binascii
import io
import struct
import threading
import zlib
from contextlib import suppress
from functools import lru_cache
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image, ImageFile, ImageOps, UnidentifiedImageError

from ldmkit.bounds import MAX_PIXELS
from ldmkit.errors import InputError
from ldmkit.files.reading import read_file

MAX_FILE_BYTES = 8 * MAX_PIXELS
"""Largest file size: the largest picture uncompressed, with four channels of 16 bits."""

FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "TIFF", "GIF", "PPM", "AVIF", "HEIF")
"""The only decoders that are ever used. AVIF depends on how Pillow was built; HEIF needs pillow-heif."""

URI_PREFIX = "data:image/png;base64,"
_ARRAY_PREFIX = "data:application/x-npy;base64,"
_BROKEN = (
    OSError,
    SyntaxError,
    ValueError,
    EOFError,
    KeyError,
    IndexError,
    TypeError,
    OverflowError,
    struct.error,
    zlib.error,
)


def decoders() -> tuple[str, ...]:
    """Those of `FORMATS` that are available; registers the HEIF decoder if pillow-heif is installed."""
    Image.init()
    if "HEIF" not in Image.OPEN:
        _register_heif()
    return tuple(name for name in FORMATS if name in Image.OPEN)


@lru_cache(maxsize=1)
def _register_heif() -> None:
    if find_spec("pillow_heif") is not None:
        with suppress(Exception):  # a decoder that cannot be loaded counts as not installed
            import_module("pillow_heif").register_heif_opener()


class _RefuseTruncated:
    """While active, truncated files are errors even if another library has set `LOAD_TRUNCATED_IMAGES`."""

    def __init__(self) -> None:
        self._lock, self._users, self._before = threading.Lock(), 0, False

    def __enter__(self) -> None:
        with self._lock:
            if not self._users:
                self._before, ImageFile.LOAD_TRUNCATED_IMAGES = ImageFile.LOAD_TRUNCATED_IMAGES, False
            self._users += 1

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._users -= 1
            if not self._users:
                ImageFile.LOAD_TRUNCATED_IMAGES = self._before


_refuse_truncated = _RefuseTruncated()


ORIENTATION = 0x0112
"""The EXIF orientation tag."""


class Opened(NamedTuple):
    """A decoded, upright picture, its name in error messages, and the format of its file, if it has one."""

    image: Image.Image
    where: str | None
    format: str | None = None


def open_picture(source: object, where: str | None) -> Opened:
    """A PIL picture from a path, file bytes, a data URI or a PIL image, decoded and rotated upright.

    Raises:
        InputError: `picture-*`.
    """
    if isinstance(source, Image.Image):
        _check_size(source, where)
        return Opened(_upright(source, where), where, source.format)
    data, where = file_bytes(source, where)
    try:
        image = Image.open(io.BytesIO(data), formats=decoders())
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise _too_large("the file declares a huge size", where) from None
    except UnidentifiedImageError:
        fits = "PNG, JPEG, WebP, BMP, TIFF, GIF, PPM or AVIF; HEIC where pillow-heif is installed"
        raise InputError("picture-unreadable", "not a picture file", where=where, fits=fits) from None
    except _BROKEN as failure:
        raise InputError("picture-unreadable", f"damaged picture file: {failure}", where=where) from None
    _check_size(image, where)
    if getattr(image, "n_frames", 1) > 1:
        raise InputError(
            "picture-animated", f"{getattr(image, 'n_frames', 1)} frames", where=where, fits="a file with one picture"
        )
    return Opened(_upright(image, where), where, image.format)


def picture_size(source: Path | bytes) -> tuple[int, int] | None:
    """(height, width) of the upright picture in a file, from its header; None if the header cannot be read."""
    if isinstance(source, Path) and not source.is_file():
        return None
    try:
        with Image.open(io.BytesIO(source) if isinstance(source, bytes) else source, formats=decoders()) as image:
            turned = image.getexif().get(ORIENTATION) in (5, 6, 7, 8)
            return (image.width, image.height) if turned else (image.height, image.width)
    except (UnidentifiedImageError, Image.DecompressionBombError, Image.DecompressionBombWarning, *_BROKEN):
        return None


def file_bytes(source: object, where: str | None) -> tuple[bytes, str | None]:
    """The bytes of a path, a data URI or of themselves, and what to call them in errors.

    Raises:
        InputError: `picture-*`.
    """
    if isinstance(source, (bytes, bytearray, memoryview)):
        return bytes(source), where
    if isinstance(source, str) and source.startswith("data:"):
        return _uri_bytes(source, where), where
    if not isinstance(source, (str, Path)):
        fits = "a path, the bytes of a file, a data URI, a PIL image, an array or a tensor"
        raise InputError("picture-type", f"a {type(source).__name__} is not a picture", where=where, fits=fits)
    try:
        return read_file(Path(source), MAX_FILE_BYTES, InputError), str(source)
    except ValueError as failure:
        if not isinstance(failure, InputError):
            raise InputError("picture-unreadable", f"cannot be read: {failure}", where=str(source)[:200]) from None
        code = _CODES.get(failure.code, "picture-unreadable")
        raise InputError(code, failure.what, where=failure.where, fits=failure.fits) from None


_CODES = {"input.not-found": "picture-missing", "input.too-large": "picture-too-large"}


def _uri_bytes(uri: str, where: str | None) -> bytes:
    head, comma, body = uri.partition(",")
    if not comma or not head.endswith(";base64"):
        raise InputError("picture-uri", f"a data URI that starts {uri[:40]!r}", where=where, fits=f"{URI_PREFIX}...")
    try:
        return base64.b64decode(body, validate=True)
    except (binascii.Error, ValueError) as failure:
        raise InputError("picture-uri", f"invalid base64 in a data URI: {failure}", where=where) from None


def _upright(image: Image.Image, where: str | None) -> Image.Image:
    try:
        with _refuse_truncated:
            image.load()
        return ImageOps.exif_transpose(image)
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise _too_large("the file contains a huge picture", where) from None
    except _BROKEN as failure:
        raise InputError("picture-truncated", f"the picture is truncated or damaged: {failure}", where=where) from None


def _check_size(image: Image.Image, where: str | None) -> None:
    width, height = image.size
    if width * height > MAX_PIXELS:
        raise _too_large(f"{width} x {height} pixels", where)
    if width == 0 or height == 0:
        raise InputError("picture-shape", f"{width} x {height} pixels", where=where, fits="at least 1 x 1")


def _too_large(what: str, where: str | None) -> InputError:
    return InputError("picture-too-large", what, where=where, fits=f"at most {MAX_PIXELS} pixels")


def png_uri(levels: np.ndarray[Any, Any]) -> str:
    """A PNG data URI from uint8 levels (H, W) or (H, W, 3)."""
    file = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(levels)).save(file, "PNG")
    return URI_PREFIX + base64.b64encode(file.getvalue()).decode()


def array_uri(values: np.ndarray[Any, Any]) -> str:
    """An NPY data URI, which stores any numbers exactly."""
    file = io.BytesIO()
    np.save(file, values, allow_pickle=False)
    return _ARRAY_PREFIX + base64.b64encode(file.getvalue()).decode()


def array_from_uri(source: object, where: str | None) -> np.ndarray[Any, Any] | None:
    """The array of an NPY data URI; None for anything else.

    Raises:
        InputError: the data are damaged.
    """
    if not (isinstance(source, str) and source.startswith(_ARRAY_PREFIX)):
        return None
    return npy_array(_uri_bytes(source, where), where)


def is_npy(data: bytes) -> bool:
    """Whether the bytes are those of a file of `np.save`."""
    return data.startswith(np.lib.format.MAGIC_PREFIX)


def npy_array(npy: bytes, where: str | None) -> np.ndarray[Any, Any]:
    """The array of an NPY file.

    Raises:
        InputError: `picture-unreadable`, `picture-too-large`: damaged, huge, or of other things than numbers.
    """
    data = io.BytesIO(npy)
    try:
        _check_header(data, where)
        array: np.ndarray[Any, Any] = np.load(data, allow_pickle=False)
    except _BROKEN as failure:
        if isinstance(failure, InputError):
            raise
        raise InputError("picture-unreadable", f"damaged NPY data: {failure}", where=where) from None
    return array


def _check_header(data: io.BytesIO, where: str | None) -> None:
    version = np.lib.format.read_magic(data)
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, _, dtype = read(data)
    if dtype.kind not in "biuf" or int(np.prod(shape, dtype=object)) > 3 * MAX_PIXELS:
        raise _too_large(f"an array of shape {shape} and {dtype}", where)
    data.seek(0)
