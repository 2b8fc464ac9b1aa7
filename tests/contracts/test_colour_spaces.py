"""Pictures whose file says that their levels are not sRGB's are said to be read as if they were."""

from __future__ import annotations

import io
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ldmkit_training.data.sources import records
from PIL import Image, ImageCms, PngImagePlugin

from ldmkit.errors import DrawingWarning
from ldmkit.files.pictures import read_levels, read_mask, read_picture

PICTURE = Image.fromarray(np.random.default_rng(0).integers(0, 256, (8, 8, 3), dtype=np.uint8))


def profile(name: str) -> bytes:
    return ImageCms.ImageCmsProfile(ImageCms.createProfile(name)).tobytes()  # type: ignore[arg-type]


def wide() -> bytes:
    """sRGB's own profile with red and blue exchanged: as valid as any, and of other colours."""
    data = bytearray(profile("sRGB"))
    tags = {bytes(data[132 + 12 * i : 136 + 12 * i]): 132 + 12 * i for i in range(int.from_bytes(data[128:132], "big"))}
    red, blue = tags[b"rXYZ"], tags[b"bXYZ"]
    data[red + 4 : red + 12], data[blue + 4 : blue + 12] = data[blue + 4 : blue + 12], data[red + 4 : red + 12]
    return bytes(data)


def written(path: Path, icc: bytes | None = None, gamma: float | None = None) -> Path:
    info = PngImagePlugin.PngInfo()
    if gamma is not None:
        info.add(b"gAMA", round(gamma * 100_000).to_bytes(4, "big"))
    PICTURE.save(path, icc_profile=icc, **({"pnginfo": info} if path.suffix == ".png" else {}))
    return path


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".webp"])
def test_another_profile(tmp_path: Path, suffix: str) -> None:
    path = written(tmp_path / f"a{suffix}", wide())
    with pytest.warns(DrawingWarning, match=rf"a{suffix}: its colour space is .*, not sRGB"):
        read_picture(path)


def test_a_gamma_and_a_damaged_profile(tmp_path: Path) -> None:
    with pytest.warns(DrawingWarning, match="gamma 1, not sRGB"):
        read_picture(written(tmp_path / "a.png", gamma=1.0))
    with pytest.warns(DrawingWarning, match="an unreadable profile, not sRGB"):
        read_picture(written(tmp_path / "b.jpg", b"no profile" * 20))


def test_srgb_says_nothing(tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for options in ({}, {"icc": profile("sRGB")}, {"gamma": 0.45455}):
            given: dict[str, Any] = options
            read_picture(written(tmp_path / "a.png", **given))


def test_training_is_told_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(records, "_TOLD", set())
    path = written(tmp_path / "a.png", wide())
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always")
        for _ in range(3):
            records.read_image(path, str(path), None)
    assert len(found) == 1 and "in this and any other such picture" in str(found[0].message)
    with pytest.warns(DrawingWarning):
        read_levels(io.BytesIO(path.read_bytes()).getvalue())


def test_masks_with_soft_edges(tmp_path: Path) -> None:
    """Levels between black and white shift with the colour space; black and white are the same in all of them."""
    soft = Image.fromarray(np.arange(0, 256, 4, dtype=np.uint8).reshape(8, 8)).convert("RGB")
    soft.save(tmp_path / "soft.png", icc_profile=wide())
    soft.point(lambda level: 255 * (level > 100)).save(tmp_path / "hard.png", icc_profile=wide())
    with pytest.warns(DrawingWarning, match="soft.png: its colour space is"):
        read_mask(tmp_path / "soft.png")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        read_mask(tmp_path / "hard.png")
