"""Pictures, masks and label maps from every kind of source, and refusals that name the file."""

from __future__ import annotations

import base64
import io
import json
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from pydantic import TypeAdapter

from ldmkit import InputError
from ldmkit.files.picture_files import MAX_PIXELS
from ldmkit.files.pictures import (
    LabelMap,
    Mask,
    Picture,
    data_uri,
    label_map_uri,
    mask_uri,
    read_label_map,
    read_mask,
    read_picture,
    to_pil,
    to_png_bytes,
)

LEVELS = np.random.default_rng(0).integers(0, 256, (5, 7, 3), dtype=np.uint8)
WANTED = torch.from_numpy(LEVELS).permute(2, 0, 1).float() / 127.5 - 1
GREY = LEVELS[..., 0]


def png(image: Image.Image, **options: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, options.pop("format", "PNG"), **options)
    return file.getvalue()


RGB = Image.fromarray(LEVELS)


def indexed() -> Image.Image:
    image = Image.new("P", (7, 5))
    image.putpalette([0, 0, 0, 255, 0, 0, 0, 255, 0, 0, 0, 255])
    image.putdata((GREY % 4).flatten().tolist())
    return image


# ---- what is read


def test_one_picture_from_every_source(tmp_path: Path) -> None:
    path = tmp_path / "it.png"
    path.write_bytes(png(RGB))
    floats = LEVELS.astype(np.float64) / 255
    uri = "data:image/png;base64," + base64.b64encode(png(RGB)).decode()
    for source in (path, str(path), png(RGB), bytearray(png(RGB)), uri, RGB, LEVELS, WANTED, data_uri(WANTED)):
        picture = read_picture(source)
        assert picture.dtype == torch.float32 and torch.equal(picture, WANTED), type(source)
    assert torch.allclose(read_picture(floats), WANTED, atol=1e-6)
    assert torch.equal(read_picture(RGB.convert("RGBA")), WANTED)
    assert torch.equal(read_picture(np.dstack([LEVELS, np.full((5, 7), 255, np.uint8)])), WANTED)


def test_other_modes_become_rgb() -> None:
    grey = torch.from_numpy(GREY).float() / 127.5 - 1
    assert torch.equal(read_picture(png(Image.fromarray(GREY))), grey.expand(3, -1, -1))
    assert torch.equal(read_picture(GREY), grey.expand(3, -1, -1))
    assert torch.equal(read_picture(GREY[..., None]), grey.expand(3, -1, -1))
    bits = Image.fromarray(GREY > 127)
    assert set(read_picture(png(bits)).unique().tolist()) == {-1.0, 1.0}
    colours = read_picture(png(indexed()))
    assert torch.equal(colours[0] > 0, torch.from_numpy(GREY % 4 == 1))
    assert read_picture(np.zeros((1, 1, 3), np.uint8)).shape == (3, 1, 1)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation(orientation: int) -> None:
    """What a viewer shows: bright corner at the top left, whatever the camera's position."""
    upright = np.zeros((4, 6, 3), np.uint8)
    upright[0, 0] = 255
    stored = {
        1: upright,
        2: upright[:, ::-1],
        3: upright[::-1, ::-1],
        4: upright[::-1],
        5: upright.transpose(1, 0, 2),
        6: np.rot90(upright, 1),
        7: upright.transpose(1, 0, 2)[::-1, ::-1],
        8: np.rot90(upright, -1),
    }[orientation]
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = png(Image.fromarray(np.ascontiguousarray(stored)), exif=exif)
    picture = read_picture(data)
    assert picture.shape == (3, 4, 6)
    assert picture[0, 0, 0] == 1 and picture.sum() == 3 - (picture.numel() - 3)


def test_masks() -> None:
    wanted = (torch.from_numpy(GREY).float() / 255)[None]
    for source in (
        png(Image.fromarray(GREY)),
        png(Image.fromarray(GREY).convert("RGB")),
        GREY,
        GREY[..., None],
        wanted,
    ):
        assert torch.equal(read_mask(source), wanted)
    assert torch.equal(read_mask(wanted[0]), wanted)
    assert torch.equal(read_mask(GREY > 100), torch.from_numpy(GREY > 100).float()[None])
    assert torch.equal(read_mask(png(Image.fromarray(GREY > 100))), torch.from_numpy(GREY > 100).float()[None])
    assert torch.equal(read_mask(mask_uri(wanted)), wanted)


def test_label_maps() -> None:
    wanted = torch.from_numpy(GREY % 4).long()
    assert torch.equal(read_label_map(png(indexed())), wanted)
    assert torch.equal(read_label_map(png(Image.fromarray((GREY % 4).astype(np.uint8)))), wanted)
    assert torch.equal(read_label_map(wanted.tolist()), wanted)
    assert torch.equal(read_label_map(wanted.to(torch.uint8)), wanted)
    assert torch.equal(read_label_map(png(Image.fromarray(GREY > 127))), torch.from_numpy(GREY > 127).long())
    deep = np.arange(35, dtype=np.uint16).reshape(5, 7) * 1000
    assert torch.equal(read_label_map(png(Image.fromarray(deep))), torch.from_numpy(deep.astype(np.int64)))


# ---- what is refused


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def claimed(width: int, height: int) -> bytes:
    """A tiny PNG whose header claims a size."""
    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    body = chunk(b"IDAT", zlib.compress(b"\0" * 100))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + body + chunk(b"IEND", b"")


def half_transparent() -> Image.Image:
    image = RGB.convert("RGBA")
    image.putpixel((0, 0), (1, 2, 3, 254))
    return image


def flipped_bits(data: bytes) -> bytes:
    middle = len(data) // 2
    return data[:middle] + bytes(b ^ 0xFF for b in data[middle : middle + 40]) + data[middle + 40 :]


def animation() -> bytes:
    return png(RGB, format="GIF", save_all=True, append_images=[RGB.transpose(Image.Transpose.ROTATE_180)])


def transparent_palette() -> bytes:
    return png(indexed(), transparency=1)


BIG = Image.fromarray(np.random.default_rng(1).integers(0, 256, (64, 64, 3), dtype=np.uint8))
NPY = data_uri(WANTED / 3)

BAD: dict[str, tuple[Callable[[], Any], str, str]] = {
    "missing": (lambda: "nowhere/no.png", "missing", "nowhere/no.png"),
    "nul in the path": (lambda: "a\0b.png", "unreadable", "a"),
    "folder": (lambda: "/", "unreadable", "/"),
    "path too long": (lambda: "x" * 5000, "unreadable", "xxx"),
    "text": (lambda: b"this is no picture", "unreadable", "PNG"),
    "empty": (lambda: b"", "unreadable", "PNG"),
    "postscript": (lambda: b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 5 5\n", "unreadable", "PNG"),
    "truncated png": (lambda: png(BIG)[:-2000], "truncated", "is truncated"),
    "truncated jpeg": (lambda: png(BIG, format="JPEG")[:-1000], "truncated", "is truncated"),
    "header only": (lambda: png(BIG)[:40], "unreadable", "not a picture"),
    "flipped bits": (lambda: flipped_bits(png(BIG)), "truncated", "damaged"),
    "bomb": (lambda: claimed(30000, 30000), "too-large", str(MAX_PIXELS)),
    "smaller bomb": (lambda: claimed(9000, 9000), "too-large", "9000 x 9000"),
    "alpha": (half_transparent, "alpha", "composite"),
    "alpha file": (lambda: png(half_transparent()), "alpha", "composite"),
    "grey alpha": (lambda: png(half_transparent().convert("LA")), "alpha", "composite"),
    "palette alpha": (transparent_palette, "alpha", "composite"),
    "alpha array": (lambda: np.zeros((4, 4, 4), np.uint8), "alpha", "composite"),
    "alpha float array": (lambda: np.zeros((4, 4, 4), np.float32), "alpha", "composite"),
    "cmyk": (lambda: png(RGB.convert("CMYK"), format="JPEG"), "cmyk", "RGB"),
    "16 bits": (lambda: png(Image.fromarray(GREY.astype(np.uint16) * 256)), "depth", "8 bits"),
    "32-bit float": (lambda: png(Image.fromarray(GREY.astype(np.float32)), format="TIFF"), "depth", "8 bits"),
    "animated": (animation, "animated", "2 frames"),
    "uri scheme": (lambda: "data:image/png,xyz", "uri", "base64"),
    "uri base64": (lambda: "data:image/png;base64,@@@", "uri", "base64"),
    "uri of text": (lambda: "data:image/png;base64,aGVsbG8=", "unreadable", "PNG"),
    "pickled npy": (
        lambda: "data:application/x-npy;base64," + base64.b64encode(_pickled()).decode(),
        "too-large",
        "object",
    ),
    "integer array": (lambda: np.zeros((4, 4, 3), np.int32), "dtype", "int32"),
    "array shape": (lambda: np.zeros((4, 4, 2), np.uint8), "shape", "(height, width, 3)"),
    "empty array": (lambda: np.zeros((0, 4, 3), np.uint8), "shape", "(0, 4, 3)"),
    "array range": (lambda: np.full((4, 4, 3), 255.0), "range", "[0, 1]"),
    "array nan": (lambda: np.full((4, 4, 3), np.nan), "not-finite", "NaN"),
    "tensor batch": (lambda: torch.zeros(1, 3, 4, 4), "shape", "(3, height, width)"),
    "tensor uint8": (lambda: torch.zeros(3, 4, 4, dtype=torch.uint8), "dtype", "[-1, 1]"),
    "tensor range": (lambda: torch.full((3, 4, 4), -1.1), "range", "-1.1"),
    "tensor inf": (lambda: torch.full((3, 4, 4), float("inf")), "not-finite", "infinity"),
    "none": (lambda: None, "type", "NoneType"),
    "number": (lambda: 7, "type", "int"),
    "list": (lambda: [1, 2], "type", "list"),
}


def _pickled() -> bytes:
    file = io.BytesIO()
    np.save(file, np.array([{"a": 1}], dtype=object), allow_pickle=True)
    return file.getvalue()


@pytest.mark.parametrize("name", BAD)
def test_bad_pictures_are_refused(name: str) -> None:
    make, code, words = BAD[name]
    with pytest.raises(InputError) as caught:
        read_picture(make(), "inputs.image")
    assert caught.value.code.startswith(f"input.picture-{code}")
    assert words in str(caught.value)


def test_the_file_is_named(tmp_path: Path) -> None:
    path = tmp_path / "broken.jpg"
    path.write_bytes(png(BIG, format="JPEG")[:-1000])
    for read in (read_picture, read_mask, read_label_map):
        with pytest.raises(InputError, match=r"broken\.jpg"):
            read(path)


def test_bad_masks_and_label_maps() -> None:
    for source, code in (
        (png(RGB), "not-grey"),
        (png(half_transparent()), "alpha"),
        (png(Image.fromarray(GREY.astype(np.uint16))), "depth"),
        (torch.full((1, 4, 4), 1.5), "range"),
        (torch.zeros(3, 4, 4), "shape"),
        (torch.zeros(4, 4, dtype=torch.long), "dtype"),
    ):
        with pytest.raises(InputError) as caught:
            read_mask(source, "mask")
        assert caught.value.code == f"input.picture-{code}"
    for source, code in (
        (png(RGB), "not-labels"),
        (np.zeros((4, 4)), "dtype"),
        ([[1, -2]], "range"),
        ([[1], [1, 2]], "shape"),
        ([[2**70]], "dtype"),
        (np.zeros((2, 2, 2), np.int64), "shape"),
        ([], "shape"),
    ):
        with pytest.raises(InputError) as caught:
            read_label_map(source, "map")
        assert caught.value.code == f"input.picture-{code}", source


def test_callers_tensors_are_not_touched() -> None:
    source = WANTED.clone().requires_grad_()
    read_picture(source)
    assert torch.equal(source, WANTED) and not read_picture(source).requires_grad


# ---- what is written


def test_to_pil_rounds_and_clips() -> None:
    images = torch.tensor([-0.5, 0.0, 0.4999 / 255, 0.5001 / 255, 1.0, 2.0]).view(1, 1, 1, 6).expand(2, 3, 1, 6)
    [first, second] = to_pil(images)
    assert np.asarray(first)[0, :, 0].tolist() == [0, 0, 0, 1, 255, 255]
    assert np.array_equal(np.asarray(first), np.asarray(second))
    assert len(to_pil(images[0])) == 1


def test_png_carries_text_and_levels() -> None:
    recipe = json.dumps({"prompt": "日本 " * 1000})
    data = to_png_bytes((WANTED + 1) / 2, {"recipe": recipe, "short": "ü"})
    image = Image.open(io.BytesIO(data))
    assert image.text["recipe"] == recipe and image.text["short"] == "ü"  # type: ignore[attr-defined]
    assert np.array_equal(np.asarray(image), LEVELS)


@pytest.mark.parametrize(
    ("kind", "value", "prefix"),
    [
        (Picture, WANTED, "data:image/png"),
        (Picture, WANTED / 3, "data:application/x-npy"),
        (Mask, (torch.from_numpy(GREY).float() / 255)[None], "data:image/png"),
        (Mask, torch.full((1, 2, 2), 0.3), "data:application/x-npy"),
        (LabelMap, torch.from_numpy(GREY).long(), "data:image/png"),
        (LabelMap, torch.from_numpy(GREY).long() * 300, "data:application/x-npy"),
    ],
)
def test_json_round_trip_is_lossless(kind: Any, value: torch.Tensor, prefix: str) -> None:
    adapter: TypeAdapter[Any] = TypeAdapter(kind)
    text = adapter.dump_json(value)
    assert json.loads(text).startswith(prefix)
    again = adapter.validate_json(text)
    assert again.dtype == value.dtype and torch.equal(again, value)
    schema = adapter.json_schema()
    assert schema["type"] == "string" and schema["format"] == "picture"


def test_uris_of_labels_keep_large_values() -> None:
    labels = torch.tensor([[0, 255], [256, 100_000]])
    assert torch.equal(read_label_map(label_map_uri(labels)), labels)
