"""Whether the levels of a picture file are those of sRGB, as which they are read."""

from __future__ import annotations

import io
from functools import lru_cache
from itertools import product

import numpy as np
from PIL import Image, ImageCms

from ldmkit.errors import warn
from ldmkit.printable import printable

ALIKE = 8
"""Of 255: how far a profile's colours may lie from sRGB's. Plain gamma 2.2 stays within it; Display P3 is 40 away."""

SRGB_GAMMA, NEAR = 1 / 2.2, 0.02
"""The exponent that a PNG's gAMA chunk has for levels that are sRGB's, nearly."""


def tell_profile(image: Image.Image, where: str | None, told: set[str] | None = None) -> None:
    """Warn of a picture whose file says that its levels are of another colour space than sRGB.

    Args:
        told: names of colour spaces of which was told already, and need not be again; the new one is added.
    """
    name = _other_space(image)
    if name is None or (told is not None and name in told):
        return
    if told is not None:
        told.add(name)
    what = f"its colour space is {name}, not sRGB, and its levels are read as if it were: colours shift"
    more = ", of this and any other picture" if told is not None else ""
    warn(f"{where or 'a picture'}: {what}{more} (convert it to sRGB first)")


def _other_space(image: Image.Image) -> str | None:
    profile = image.info.get("icc_profile")
    if isinstance(profile, bytes) and profile:
        return _foreign(profile, "L" if image.mode in ("1", "L", "LA", "La") else "RGB")
    gamma = image.info.get("gamma")
    if isinstance(gamma, float) and abs(gamma - SRGB_GAMMA) > NEAR and "srgb" not in image.info:
        return f"of gamma {1 / gamma:.3g}" if gamma > 0 else None
    return None


@lru_cache(maxsize=64)
def _foreign(profile: bytes, mode: str) -> str | None:
    """The name of an embedded profile whose colours are not sRGB's; None: they are."""
    try:
        read = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        name = repr(printable(ImageCms.getProfileDescription(read).strip())[:80])
        change = ImageCms.buildTransform(read, ImageCms.createProfile("sRGB"), mode, "RGB")
        levels = _levels(mode)
        seen = ImageCms.applyTransform(levels, change)
    except (ImageCms.PyCMSError, OSError, ValueError, TypeError):
        return "that of a profile that cannot be read"
    if seen is None:
        return name
    apart = np.array(seen, np.int16) - np.array(levels.convert("RGB"), np.int16)
    return name if int(np.abs(apart).max()) > ALIKE else None


def _levels(mode: str) -> Image.Image:
    """Colours all over the cube, or greys."""
    if mode == "L":
        return Image.fromarray(np.arange(0, 256, 5, dtype=np.uint8)[None])
    cube = np.array(list(product(range(0, 256, 51), repeat=3)), np.uint8)
    return Image.fromarray(cube[None])
