"""Conversion of pictures, masks and label maps from all accepted types to tensors, and to PNG.

| function         | returns                                | grey, palette, 1-bit files          |
|------------------|----------------------------------------|-------------------------------------|
| `read_picture`   | (3, H, W) float32 in [-1, 1]           | converted to RGB                    |
| `read_mask`      | (1, H, W) float32 in [0, 1]            | must be grey (a palette of greys is) |
| `read_label_map` | (H, W) int64                           | values, or palette indices, are labels |

Nothing is resized, composited or clipped; data that would need it are refused. 16-bit grey files are refused as
pictures and masks, but exact as label maps. EXIF orientation is applied.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping
from typing import Annotated, Any, TypeAlias

import numpy as np
import torch
from PIL import Image, PngImagePlugin
from pydantic import PlainSerializer, PlainValidator, WithJsonSchema
from torch import Tensor

from ldmkit.errors import InputError, raised
from ldmkit.files.colour import warn_if_not_srgb
from ldmkit.files.numbers import plain
from ldmkit.files.picture_files import URI_PREFIX, Opened, array_from_uri, array_uri, open_picture, png_uri
from ldmkit.files.picture_ranges import remark_picture
from ldmkit.files.tensors import dense as dense
from ldmkit.files.tensors import own_floats

EDGE = 1e-6
"""How far floating-point values may be outside their range, to allow for rounding; they are not clipped."""

LOSSY = ("JPEG", "MPO")
"""Formats of grey pictures that change levels."""


def read_picture(source: object, where: str | None = None) -> Tensor:
    """A colour picture as (3, H, W) float32 in [-1, 1], on the CPU.

    Args:
        source: path, bytes of a file, data URI, PIL image, array (H, W[, 3 or 4]) of uint8 or of floats in [0, 1],
            or tensor (3, H, W) of floats in [-1, 1].
        where: name of the argument in errors; files are identified by their path.

    Raises:
        InputError: `picture-*`: no such file, not a picture, truncated, too large, transparent, CMYK, 16 bits, or a
            wrong shape, type or range.
    """
    if isinstance(source, Tensor):
        return _picture_tensor(source, where)
    if isinstance(source, np.ndarray):
        return _picture_array(unmasked(source, where), where)
    if (stored := array_from_uri(source, where)) is not None:
        return _picture_tensor(torch.from_numpy(stored), where)
    return _levels(torch.from_numpy(read_levels(source, where)).permute(2, 0, 1)).contiguous()


def read_levels(
    source: object,
    where: str | None = None,
    background: tuple[int, int, int] | None = None,
    warned: set[str] | None = None,
) -> np.ndarray[Any, Any]:
    """A colour picture as (H, W, 3) uint8, RGB.

    Args:
        source: path, bytes of a file, data URI or PIL image.
        background: colour to composite transparent pictures on; None refuses them.
        warned: see `warn_if_not_srgb`.

    Raises:
        InputError: as `read_picture`.
    """
    opened = open_picture(source, where)
    warn_if_not_srgb(opened.image, opened.where, warned)
    _check_depth(opened, "picture", "8 bits per channel")
    if background is not None and _transparent(opened.image):
        image = _rgba(opened)
        return np.array(Image.alpha_composite(Image.new("RGBA", image.size, (*background, 255)), image).convert("RGB"))
    return np.array(_converted(_opaque(opened), "RGB", opened.where))


def read_mask(source: object, where: str | None = None) -> Tensor:
    """A mask as (1, H, W) float32 in [0, 1], 1 where the picture is to be filled.

    Args:
        source: path, bytes, data URI, PIL image; array (H, W[, 1]) or tensor ([1,] H, W) of bools, of floats in
            [0, 1], or (arrays only) of uint8, where 255 means 1.

    Raises:
        InputError: as `read_picture`, or the picture is not grey.
    """
    if isinstance(source, np.ndarray):
        source = unmasked(source, where)
        if source.dtype.kind not in "biuf" or source.dtype.itemsize > 8:
            fits = "bools, uint8, or floats in [0, 1]"
            raise InputError("picture-dtype", f"a mask of {source.dtype}", where=where, fits=fits)
        array = source[..., 0] if source.ndim == 3 and source.shape[-1] == 1 else source
        source = torch.from_numpy(np.ascontiguousarray(array, dtype=array.dtype.newbyteorder("=")))
        if source.dtype == torch.uint8:
            _check_levels(int(source.max()) if source.numel() else 0, "mask", where)
            source = source.float() / 255
    if isinstance(source, Tensor):
        return _mask_tensor(source, where)
    if (stored := array_from_uri(source, where)) is not None:
        return _mask_tensor(torch.from_numpy(stored), where)
    opened = open_picture(source, where)
    _check_depth(opened, "mask", "an 8-bit grey mask")
    image = _opaque(opened)
    red, green, blue = np.moveaxis(np.asarray(image.convert("RGB")), -1, 0)
    if not (np.array_equal(red, green) and np.array_equal(red, blue)):
        raise InputError(
            "picture-not-grey",
            "the mask is coloured",
            where=opened.where,
            fits="a grey picture, white where to fill and black elsewhere",
        )
    _check_levels(int(red.max()), "mask", opened.where)
    if bool(((red > 0) & (red < 255)).any()):  # black and white are the same in every colour space
        warn_if_not_srgb(opened.image, opened.where)
    return (torch.from_numpy(red.copy()).float() / 255)[None]


def read_label_map(source: object, where: str | None = None) -> Tensor:
    """A label map as (H, W) int64 >= 0.

    Args:
        source: path, bytes, data URI or PIL image (palette: the indices are the labels; grey of 1, 8 or 16 bits:
            the values); array, tensor or rows of integers (H, W).

    Raises:
        InputError: as `read_picture`; a coloured picture, non-integer or negative values.
    """
    stored = array_from_uri(source, where)
    if stored is not None:
        source = stored
    if isinstance(source, (np.ndarray, Tensor, list, tuple)):
        return _label_array(source, where)
    opened = open_picture(source, where)
    image = opened.image
    if image.mode not in ("P", "L", "1", "I") and not image.mode.startswith("I;16"):
        fits = "a palette picture (the indices are the labels) or a grey one (the values are the labels)"
        what = f"a {image.mode} picture is not a label map"
        raise InputError("picture-not-labels", what, where=opened.where, fits=fits)
    if opened.format in LOSSY:
        what = f"{opened.format} changes levels, so the labels in it are no longer those that were written"
        raise InputError("picture-not-labels", what, where=opened.where, fits="a palette or grey PNG")
    return _label_array(np.asarray(image).astype(np.int64), opened.where)


def to_pil(images: Tensor) -> list[Image.Image]:
    """8-bit PIL pictures from (B, 3, H, W) or (3, H, W) in [0, 1], rounded to the nearest level and clipped."""
    batch = images.detach()[None] if images.ndim == 3 else images.detach()
    levels = (batch.float().clamp(0, 1) * 255).round().to(torch.uint8).permute(0, 2, 3, 1).cpu().numpy()
    return [Image.fromarray(row) for row in levels]


def to_png_bytes(image: Tensor, text: Mapping[str, str] | None = None) -> bytes:
    """The bytes of a PNG file of (3, H, W) in [0, 1], with text entries (key -> value)."""
    info = PngImagePlugin.PngInfo()
    for key, value in (text or {}).items():
        info.add_itxt(key, value, zip=len(value) > 1000)
    file = io.BytesIO()
    to_pil(image)[0].save(file, "PNG", pnginfo=info)
    return file.getvalue()


def data_uri(picture: Tensor) -> str:
    """A data URI that `read_picture` reads back as exactly this tensor (3, H, W) in [-1, 1].

    It contains a PNG if all values are 8-bit levels, otherwise a float32 NPY.
    """
    levels = ((picture.detach().float().cpu() + 1) * 127.5).round().clamp(0, 255).to(torch.uint8)
    if torch.equal(_levels(levels), picture.detach().float().cpu()):
        return png_uri(levels.permute(1, 2, 0).numpy())
    return array_uri(picture.detach().float().cpu().numpy())


def mask_uri(mask: Tensor) -> str:
    """Like `data_uri`, for a mask (1, H, W) in [0, 1] and `read_mask`."""
    levels = (mask.detach().float().cpu() * 255).round().clamp(0, 255).to(torch.uint8)
    if torch.equal(levels.float() / 255, mask.detach().float().cpu()):
        return png_uri(levels[0].numpy())
    return array_uri(mask.detach().float().cpu().numpy())


def label_map_uri(labels: Tensor) -> str:
    """Like `data_uri`, for a label map (H, W) and `read_label_map`; a grey PNG if all labels are below 256."""
    values = labels.detach().cpu()
    if int(values.max()) < 256:
        return png_uri(values.to(torch.uint8).numpy())
    return array_uri(values.numpy())


def _levels(levels: Tensor) -> Tensor:
    return levels.float() / 127.5 - 1


def _from_bytes(image: Image.Image) -> Tensor:
    return _levels(torch.from_numpy(np.array(image)).permute(2, 0, 1)).contiguous()


def _opaque(opened: Opened) -> Image.Image:
    image = opened.image
    if image.mode == "CMYK":
        raise InputError(
            "picture-cmyk",
            "CMYK pictures are not supported, as their colours are not defined without a profile",
            where=opened.where,
            fits="convert it to RGB first",
        )
    if not _transparent(image):
        return image
    rgba = _rgba(opened)
    alpha = rgba.getchannel("A")
    if alpha.getextrema() != (255, 255):
        raise InputError(
            "picture-alpha",
            "the picture has transparent pixels",
            where=opened.where,
            fits="composite it on a background first",
        )
    return rgba.convert("RGB")


def _check_depth(opened: Opened, what: str, fits: str) -> None:
    """Refuse more than 8 bits before any conversion, which would clip to white."""
    mode = opened.image.mode
    if mode in ("I", "F") or mode.startswith("I;16"):
        raise InputError("picture-depth", f"the {what} ({mode}) has more than 8 bits", where=opened.where, fits=fits)


def _check_levels(most: int, what: str, where: str | None) -> None:
    """Refuse uint8 data that contain only 0 and 1, which were meant as 0 and 255 and would be practically black."""
    if most == 1:
        problem = f"the largest level of the {what} is 1 of 255, which is practically black"
        raise InputError("picture-range", problem, where=where, fits="levels from 0 to 255; multiply 0 and 1 by 255")


def _rgba(opened: Opened) -> Image.Image:
    return _converted(opened.image, "RGBA", opened.where)


def _converted(image: Image.Image, mode: str, where: str | None) -> Image.Image:
    try:
        return image.convert(mode)
    except ValueError:
        what = f"pictures of mode {image.mode} are not supported"
        raise InputError("picture-mode", what, where=where, fits="convert it to RGB first") from None


def _transparent(image: Image.Image) -> bool:
    return "A" in image.mode.upper().replace("LAB", "") or "transparency" in image.info


def unmasked(array: np.ndarray[Any, Any], where: str | None = None) -> np.ndarray[Any, Any]:
    """The data of an array, refused if any item is masked, because values under a mask are undefined.

    Raises:
        InputError: `picture-masked`.
    """
    if np.ma.is_masked(array):
        count = int(np.ma.getmaskarray(array).sum())
        what = f"{count} of {array.size} items of the array are masked"
        raise InputError("picture-masked", what, where=where, fits="array.filled(...) with suitable values")
    return np.ma.getdata(array)


def _picture_tensor(tensor: Tensor, where: str | None) -> Tensor:
    tensor = dense(tensor, where)
    if tensor.ndim != 3 or tensor.shape[0] != 3 or 0 in tensor.shape:
        raise InputError(
            "picture-shape", f"a tensor of shape {tuple(tensor.shape)}", where=where, fits="(3, height, width)"
        )
    if not tensor.is_floating_point():
        raise InputError("picture-dtype", f"a tensor of {tensor.dtype}", where=where, fits="floats in [-1, 1]")
    picture = _in_range(own_floats(tensor), -1.0, 1.0, where)
    remark_picture(picture, where)
    return picture


def _picture_array(array: np.ndarray[Any, Any], where: str | None) -> Tensor:
    if array.ndim == 2:
        array = np.repeat(array[..., None], 3, axis=2)
    if array.ndim != 3 or array.shape[2] not in (1, 3, 4) or 0 in array.shape:
        raise InputError("picture-shape", f"an array of shape {array.shape}", where=where, fits="(height, width, 3)")
    if array.shape[2] == 1:
        array = np.repeat(array, 3, axis=2)
    if array.dtype == np.uint8:
        _check_levels(int(array[..., :3].max()), "picture", where)
        mode = "RGBA" if array.shape[2] == 4 else "RGB"
        return _from_bytes(_opaque(Opened(Image.fromarray(np.ascontiguousarray(array), mode), where)).convert("RGB"))
    if array.dtype.kind != "f":
        raise InputError("picture-dtype", f"an array of {array.dtype}", where=where, fits="uint8, or floats in [0, 1]")
    values = _in_range(torch.from_numpy(array.astype(np.float32)), 0.0, 1.0, where)
    if values.shape[2] == 4 and not bool((values[..., 3] == 1).all()):
        raise InputError(
            "picture-alpha",
            "the picture has transparent pixels",
            where=where,
            fits="composite it on a background first",
        )
    return (values[..., :3] * 2 - 1).permute(2, 0, 1).contiguous()


def _mask_tensor(tensor: Tensor, where: str | None) -> Tensor:
    mask = dense(tensor, where).detach()
    mask = mask[None] if mask.ndim == 2 else mask
    if mask.ndim != 3 or mask.shape[0] != 1 or 0 in mask.shape:
        raise InputError(
            "picture-shape", f"a mask of shape {tuple(tensor.shape)}", where=where, fits="(1, height, width)"
        )
    if mask.dtype != torch.bool and not mask.is_floating_point():
        raise InputError("picture-dtype", f"a mask of {mask.dtype}", where=where, fits="bools, or floats in [0, 1]")
    return _in_range(own_floats(mask), 0.0, 1.0, where)


def _label_array(source: object, where: str | None) -> Tensor:
    array = _whole(dense(source, where), where).numpy() if isinstance(source, Tensor) else _rows(source, where)
    if array.ndim != 2 or 0 in array.shape:
        raise InputError("picture-shape", f"a label map of shape {array.shape}", where=where, fits="(height, width)")
    if array.dtype.kind not in "iu":
        raise InputError("picture-dtype", f"labels of {array.dtype}", where=where, fits="integers")
    labels = torch.from_numpy(array.astype(np.int64))
    if int(labels.min()) < 0:
        raise InputError("picture-range", f"label {int(labels.min())} is negative", where=where, fits="labels >= 0")
    return labels


def _rows(source: Any, where: str | None) -> np.ndarray[Any, Any]:
    if isinstance(source, np.ndarray):
        return unmasked(source, where)
    try:
        array = np.asarray(source)
        # numpy converts True among integers to 1
        flags = any(isinstance(plain(label), bool) for row in source if isinstance(row, (list, tuple)) for label in row)
    except (ValueError, TypeError, OverflowError):
        raise InputError("picture-shape", "the rows of a label map differ in length", where=where) from None
    except Exception as problem:  # the caller's list raised while it was read
        raise InputError("unreadable", f"reading it failed: {raised(problem)}", where=where) from problem
    if flags:
        raise InputError("picture-dtype", "True or False among the labels", where=where, fits="integers")
    return array


def _whole(tensor: Tensor, where: str | None) -> Tensor:
    if tensor.is_floating_point() or tensor.is_complex():
        raise InputError("picture-dtype", f"labels of {tensor.dtype}", where=where, fits="integers")
    return tensor.detach().cpu()


def _in_range(values: Tensor, low: float, high: float, where: str | None) -> Tensor:
    if not bool(torch.isfinite(values).all()):
        raise InputError(
            "picture-not-finite", "NaN or infinity among the values", where=where, fits=f"values in [{low:g}, {high:g}]"
        )
    least, most = float(values.min()), float(values.max())
    if least < low - EDGE or most > high + EDGE:
        what = f"values from {least:g} to {most:g}"
        raise InputError("picture-range", what, where=where, fits=f"values in [{low:g}, {high:g}]")
    return values


def kind_of_file(read: Callable[[object], Tensor], write: Callable[[Tensor], str], title: str, description: str) -> Any:
    schema = {"type": "string", "format": "picture", "title": title, "description": description}
    return (PlainValidator(read), PlainSerializer(write, return_type=str, when_used="json"), WithJsonSchema(schema))


FILES = f"path of a PNG, JPEG, WebP, BMP, TIFF or GIF file, or a data URI ({URI_PREFIX}...)"

Picture: TypeAlias = Annotated[Tensor, *kind_of_file(read_picture, data_uri, "Picture", FILES)]
"""Pydantic type of a colour picture, read by `read_picture`; serialised to JSON as a lossless data URI."""

Mask: TypeAlias = Annotated[Tensor, *kind_of_file(read_mask, mask_uri, "Mask", f"{FILES}; white where to fill")]
"""Pydantic type of a mask, read by `read_mask`."""

LabelMap: TypeAlias = Annotated[
    Tensor,
    *kind_of_file(read_label_map, label_map_uri, "LabelMap", f"{FILES}; palette indices or grey values are the labels"),
]
"""Pydantic type of a label map, read by `read_label_map`."""
