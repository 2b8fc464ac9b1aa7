"""Picture files of every kind: read as the docs say or refused by name, by training as by a start picture."""

from __future__ import annotations

import io
import struct
import threading
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from data_sources import opened
from PIL import Image, ImageFile, ImageOps, features

from ldmkit.errors import InputError
from ldmkit.files.picture_files import decoders
from ldmkit.files.pictures import read_levels, read_mask, read_picture

NOISE = np.random.default_rng(0).integers(0, 256, (8, 12, 3), dtype=np.uint8)
MODES = (
    "1",
    "L",
    "P",
    "RGB",
    "RGBA",
    "LA",
    "PA",
    "La",
    "RGBa",
    "CMYK",
    "YCbCr",
    "LAB",
    "HSV",
    "I",
    "F",
    "I;16",
    "RGBX",
)
FORMS: list[tuple[str, dict[str, Any]]] = [
    ("PNG", {}), ("PNG", {"transparency": 0}), ("JPEG", {}), ("JPEG", {"progressive": True}), ("WEBP", {}),
    ("WEBP", {"lossless": True}), ("GIF", {}), ("BMP", {}), ("TIFF", {}), ("TIFF", {"compression": "tiff_lzw"}),
    ("PPM", {}), ("AVIF", {}), ("itself", {}),
]  # fmt: skip
REFUSED = {"CMYK": "cmyk", "I": "depth", "F": "depth", "I;16": "depth", "I;16B": "depth"}


def of_mode(mode: str) -> Image.Image:
    image = Image.fromarray(NOISE)
    if mode == "I;16":
        return Image.fromarray(np.full((8, 12), 40000, np.uint16))
    if mode == "LAB":
        return Image.new("LAB", (12, 8), (50, 10, 10))
    way = {"La": ("LA", "La"), "RGBa": ("RGBA", "RGBa"), "PA": ("P", "PA")}.get(mode, (mode,))
    for step in way:
        image = image.convert(step)
    return image


def files() -> Iterator[tuple[str, Any]]:
    for mode in MODES:
        for form, how in FORMS:
            image = of_mode(mode)
            if form == "itself":
                yield f"{mode} itself", image
                continue
            file = io.BytesIO()
            try:
                image.save(file, form, **how)
            except (OSError, ValueError, KeyError):
                continue  # the format has no such mode
            yield f"{mode} {form} {how}", file.getvalue()


def test_every_mode_of_every_format_is_read_or_refused_alike() -> None:
    """Against Pillow's own conversion; nothing raises anything else, and training sees what a start picture is."""
    seen = 0
    for name, source in files():
        image = source if isinstance(source, Image.Image) else Image.open(io.BytesIO(source))
        try:
            found = read_levels(source, name)
        except InputError as problem:
            with pytest.raises(InputError) as other:
                read_picture(source, name)
            assert other.value.code == problem.code and problem.code.startswith("input.picture-"), name
            code = REFUSED.get(image.mode)
            assert code is None or problem.code == f"input.picture-{code}", (name, problem)
            continue
        seen += 1
        assert image.mode not in REFUSED, name
        opaque = image if image.mode not in ("RGBA", "LA", "PA", "RGBa") else image.convert("RGBA")
        assert np.array_equal(found, np.asarray(opaque.convert("RGB"))), name
        levels = (read_picture(source, name).permute(1, 2, 0).numpy() + 1) * 127.5
        assert np.array_equal(np.rint(levels), found), name
    assert seen > 70


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


@pytest.mark.parametrize("background", [None, (1, 2, 3)])
def test_sixteen_bits_with_a_transparent_level_are_not_clipped_to_white(background: Any) -> None:
    file = io.BytesIO()
    Image.fromarray(np.full((8, 12), 40000, np.uint16)).save(file, "PNG")
    data = file.getvalue()
    at = data.index(b"IDAT") - 4
    data = data[:at] + chunk(b"tRNS", struct.pack(">H", 7)) + data[at:]
    for read in (lambda: read_levels(data, "x", background), lambda: read_mask(data), lambda: read_picture(data)):
        with pytest.raises(InputError) as caught:
            read()
        assert caught.value.code == "input.picture-depth"


@pytest.mark.parametrize("form", ["JPEG", "PNG", "TIFF", "WEBP", "BMP"])
def test_truncated_files_are_refused_whatever_another_library_told_pillow(
    form: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Trainers set the switch for the whole process; what is missing would be grey."""
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", True)
    file = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)).save(file, form)
    whole = file.getvalue()
    problems: list[BaseException] = []

    def work() -> None:
        for _ in range(20):
            assert read_levels(whole).shape == (64, 64, 3)
            try:
                read_levels(whole[: len(whole) * 2 // 3])
            except InputError:
                continue
            problems.append(AssertionError(f"a part of a {form} was read"))

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not problems and ImageFile.LOAD_TRUNCATED_IMAGES is True, "the switch is as it was"


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP", "TIFF", "AVIF"])
def test_every_orientation_of_every_format(tmp_path: Path, form: str, orientation: int) -> None:
    if form == "AVIF" and not features.check("avif"):
        pytest.skip("Pillow was built without AVIF")
    exif = Image.Exif()
    exif[0x0112] = orientation
    image = Image.new("RGB", (32, 16), (0, 0, 0))
    image.paste((255, 255, 255), (0, 0, 8, 8))
    path = tmp_path / f"a.{form.lower()}"
    image.save(path, form, exif=exif)
    # Pillow's own reading of the file, and of what the number means
    wanted = np.asarray(ImageOps.exif_transpose(Image.open(path)).convert("RGB"))
    found = opened("folder", tmp_path, folder=".")[0].image
    assert np.array_equal(found, wanted) and found.shape == ((16, 32, 3) if orientation < 5 else (32, 16, 3))
    corner = {1: (0, 0), 2: (0, -1), 3: (-1, -1), 4: (-1, 0), 5: (0, 0), 6: (0, -1), 7: (-1, -1), 8: (-1, 0)}
    assert found[corner[orientation]].min() > 200, "the white corner stands where the number says"


@pytest.mark.parametrize("form", ["GIF", "WEBP", "PNG", "TIFF", "AVIF"])
def test_several_frames_are_refused(tmp_path: Path, form: str) -> None:
    frames = [Image.fromarray(NOISE), Image.new("RGB", (12, 8))]
    frames[0].save(tmp_path / f"a.{form.lower()}", form, save_all=True, append_images=frames[1:])
    with pytest.raises(InputError, match="2 frames"):
        _ = opened("folder", tmp_path, folder=".")[0]


def test_heic_is_read_where_its_decoder_is_installed_and_named_where_not(tmp_path: Path) -> None:
    heif = pytest.importorskip("pillow_heif", reason="no decoder of HEIC is installed")
    assert "HEIF" in decoders(), "nobody has to register it"
    heif.from_pillow(Image.new("RGB", (32, 16), (200, 100, 50))).save(tmp_path / "a.heic")
    data = opened("folder", tmp_path, folder=".")
    # a flat colour, to a few levels at the default quality
    assert np.abs(data[0].image.astype(int) - [200, 100, 50]).max() <= 4 and not data.notes
