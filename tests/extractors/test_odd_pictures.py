"""Pictures of every mode and size, by every extractor that takes pictures: right, or refused in words."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import ldmkit
from ldmkit.bounds import MAX_PIXELS
from ldmkit.cli import main
from ldmkit.files.pictures import Picture
from ldmkit.testing.extractor import drawing

PLAIN = ldmkit.to_levels(drawing((20, 30)))
GREY = PLAIN[..., 1]
WEIGHTLESS = sorted(
    name
    for name in ldmkit.components("extractor")
    if name not in ("depth", "hed") and ldmkit.get("extractor", name)().Input is Picture  # type: ignore[attr-defined]
)


def palette() -> Image.Image:
    return Image.fromarray(PLAIN).quantize(16)


SAME: dict[str, tuple[Image.Image, np.ndarray[Any, Any]]] = {
    "L": (Image.fromarray(GREY), np.repeat(GREY[..., None], 3, axis=2)),
    "1": (Image.fromarray(GREY > 120), np.repeat((GREY > 120)[..., None] * np.uint8(255), 3, axis=2)),
    "P": (palette(), np.array(palette().convert("RGB"))),
    "RGBA": (Image.fromarray(np.dstack([PLAIN, np.full((20, 30), 255, np.uint8)])), PLAIN),
    "LA": (Image.merge("LA", [Image.fromarray(GREY), Image.new("L", (30, 20), 255)]), np.repeat(GREY[..., None], 3, 2)),
}
"""Mode -> a picture, and what it shows in RGB."""
REFUSED: dict[str, tuple[Any, str]] = {
    "I;16": (Image.fromarray(GREY.astype(np.uint16) * 257), "picture-depth"),
    "I": (Image.fromarray(GREY.astype(np.int32)), "picture-depth"),
    "F": (Image.fromarray(GREY.astype(np.float32)), "picture-depth"),
    "CMYK": (Image.fromarray(PLAIN).convert("CMYK"), "picture-cmyk"),
    "RGBA": (Image.fromarray(np.dstack([PLAIN, GREY])), "picture-alpha"),
    "NaN": (torch.full((3, 4, 4), float("nan")), "picture-not-finite"),
    "out of range": (torch.full((3, 4, 4), 7.0), "picture-range"),
    "text": (b"no picture", "picture-unreadable"),
    "nothing": ("", "picture-"),
}


def written(image: Image.Image, path: Path, **options: Any) -> Path:
    image.save(path, **options)
    return path


@pytest.mark.parametrize("mode", SAME)
@pytest.mark.parametrize("name", WEIGHTLESS)
def test_modes_show_what_their_rgb_shows(name: str, mode: str, tmp_path: Path) -> None:
    image, rgb = SAME[mode]
    extractor = ldmkit.get("extractor", name)()
    wanted = extractor.extract(extractor.parse(Image.fromarray(rgb), "rgb"))
    path = written(image, tmp_path / "picture.png")
    assert torch.equal(extractor.extract(extractor.parse(str(path), "picture")), wanted)


@pytest.mark.parametrize("orientation", range(2, 9))
def test_photographs_are_upright(orientation: int, tmp_path: Path) -> None:
    """The hint of a turned file is the hint of what a viewer shows."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = written(Image.fromarray(PLAIN), tmp_path / "turned.png", exif=exif)
    turns = {2: np.fliplr, 3: lambda a: np.rot90(a, 2), 4: np.flipud, 5: lambda a: np.rot90(np.fliplr(a))}
    turns |= {6: lambda a: np.rot90(a, 3), 7: lambda a: np.rot90(np.fliplr(a), 3), 8: np.rot90}
    upright = np.ascontiguousarray(turns[orientation](PLAIN))
    canny = ldmkit.get("extractor", "canny")()
    found = canny.extract(canny.parse(str(path), "picture"))
    assert torch.equal(found, canny.extract(ldmkit.from_levels(upright)))
    assert main(["extract", "canny", str(path), str(tmp_path / "hint.png")]) == 0
    assert torch.equal(ldmkit.read_picture(tmp_path / "hint.png"), found)


@pytest.mark.parametrize("what", REFUSED)
@pytest.mark.parametrize("name", WEIGHTLESS)
def test_what_is_no_picture_is_refused(name: str, what: str) -> None:
    given, code = REFUSED[what]
    with pytest.raises(ldmkit.InputError) as error:
        ldmkit.get("extractor", name).parse(given, "hint")
    assert error.value.code.startswith(f"input.{code}"), str(error.value)


@pytest.mark.parametrize("name", WEIGHTLESS)
@pytest.mark.parametrize("size", [(1, 1), (1, 700), (700, 1), (2, 2)])
def test_small_and_thin_pictures(name: str, size: tuple[int, int]) -> None:
    extractor = ldmkit.get("extractor", name)()
    hint = extractor.extract(drawing(size))
    assert hint.shape == (3, *size) and bool(hint.isfinite().all())


def test_huge_pictures_are_refused_before_they_are_read(tmp_path: Path) -> None:
    file = io.BytesIO()
    Image.new("1", (MAX_PIXELS // 1024 + 1, 1024)).save(file, "PNG")
    (tmp_path / "huge.png").write_bytes(file.getvalue())
    with pytest.raises(ldmkit.InputError, match="picture-too-large"):
        ldmkit.get("extractor", "canny").parse(str(tmp_path / "huge.png"), "hint")
    with pytest.raises(ldmkit.InputError, match="picture-too-large"):
        pose = ldmkit.get("extractor", "pose")(size=[16384, 16384])
        pose.extract(pose.parse({"people": []}, "hint"))


@pytest.mark.parametrize("name", WEIGHTLESS)
def test_pictures_between_levels_are_rounded_to_them(name: str) -> None:
    """A picture that training has resized has values between levels."""
    extractor = ldmkit.get("extractor", name)()
    picture = drawing((24, 24))
    between = picture + (torch.rand(picture.shape, generator=torch.Generator().manual_seed(0)) - 0.5) * 0.9 / 127.5
    assert torch.equal(extractor.extract(between.clamp(-1, 1)), extractor.extract(picture))
