"""Warnings about picture files whose colour space is not sRGB, because all files are read as sRGB."""

from __future__ import annotations

import io
from functools import lru_cache
from itertools import product

import numpy as np
from PIL import Image, ImageCms

from ldmkit.errors import warn
from ldmkit.printable import printable

ALIKE = 8
"""Largest tolerated difference from sRGB in 8-bit levels. Gamma 2.2 is within it; Display P3 differs by 40."""

SRGB_GAMMA, NEAR = 1 / 2.2, 0.02
"""The exponent in a PNG's gAMA chunk that corresponds approximately to sRGB, and its tolerance."""


def warn_if_not_srgb(image: Image.Image, where: str | None, warned: set[str] | None = None) -> None:
    """Warn if a picture file declares a colour space other than sRGB.

    Args:
        warned: names of colour spaces for which no further warning is given; the new one is added.
    """
    name = _other_space(image)
    if name is None or (warned is not None and name in warned):
        return
    if warned is not None:
        warned.add(name)
    what = f"its colour space is {name}, not sRGB, but its values are read as sRGB: colours shift"
    more = ", in this and any other such picture" if warned is not None else ""
    warn(f"{where or 'a picture'}: {what}{more} (convert it to sRGB first)")


def _other_space(image: Image.Image) -> str | None:
    profile = image.info.get("icc_profile")
    if isinstance(profile, bytes) and profile:
        return _foreign(profile, "L" if image.mode in ("1", "L", "LA", "La") else "RGB")
    gamma = image.info.get("gamma")
    if isinstance(gamma, float) and abs(gamma - SRGB_GAMMA) > NEAR and "srgb" not in image.info:
        return f"gamma {1 / gamma:.3g}" if gamma > 0 else None
    return None


@lru_cache(maxsize=64)
def _foreign(profile: bytes, mode: str) -> str | None:
    """The name of an embedded profile that differs from sRGB; None if it agrees with sRGB."""
    try:
        read = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        name = repr(printable(ImageCms.getProfileDescription(read).strip())[:80])
        change = ImageCms.buildTransform(read, ImageCms.createProfile("sRGB"), mode, "RGB")
        levels = _levels(mode)
        seen = ImageCms.applyTransform(levels, change)
    except (ImageCms.PyCMSError, OSError, ValueError, TypeError):
        return "given by an unreadable profile"
    if seen is None:
        return name
    apart = np.array(seen, np.int16) - np.array(levels.convert("RGB"), np.int16)
    return name if int(np.abs(apart).max()) > ALIKE else None


def _levels(mode: str) -> Image.Image:
    """Test colours: a grid over the RGB cube, or greys."""
    if mode == "L":
        return Image.fromarray(np.arange(0, 256, 5, dtype=np.uint8)[None])
    cube = np.array(list(product(range(0, 256, 51), repeat=3)), np.uint8)
    return Image.fromarray(cube[None])
