"""Identification of the codec of saved latents, written to the file and compared when it is read."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from ldmkit.contracts.axes import shown_size
from ldmkit.contracts.codec import Codec
from ldmkit.errors import InputError, SourceError, warn
from ldmkit.models.latent_scale import latents_of
from ldmkit.run.latents import latents_for
from ldmkit.run.sizes import Size, latent_size

KEY = "codec"
"""Key in the file's metadata."""

LOOKED_AT, APART = 8, 0.01
"""How many tensors of the encoder are compared by their spread, and how far that may move with the dtype."""


def about_codec(codec: Codec) -> dict[str, str]:
    """Metadata of a latent file that identify the codec."""
    own = latents_of(codec)
    said = {"class": own.codec, "shapes": own.shapes, "scale": own.scale, "shift": own.shift, "spread": _spread(codec)}
    return {KEY: json.dumps(said)}


def size_of(about: Mapping[str, str], codec: Codec, latents: Tensor, where: str) -> Size | None:
    """(height, width) of the picture that a file's latents (1,C,h,w) are of; None: it does not say.

    Raises:
        SourceError: `no-latents`: what it says is no size, or not that of its latents.
    """
    sides = {name: about[name] for name in ("height", "width") if name in about}
    if not sides or len(codec.axes) != 2:
        return None
    if len(sides) != 2 or not all(side.isascii() and side.isdecimal() and len(side) < 9 for side in sides.values()):
        raise SourceError("no-latents", f"its size {sides} is none", where=where, fits="both a height and a width")
    size = (int(sides["height"]), int(sides["width"]))
    if 0 in size or latent_size(size, codec) != tuple(latents.shape[2:]):
        what = f"latents of shape {list(latents.shape)}, and it says {shown_size(size)} pixels"
        raise SourceError("no-latents", what, where=where, fits="the size of the picture that they were encoded from")
    return size


def check_codec_of(about: Mapping[str, str], codec: Codec, latents: Tensor, where: str) -> None:
    """Refuse latents (1,C,*axes) from another codec; warn if the file does not identify its codec.

    Raises:
        InputError: `other-latents`; `latent-shape`: the codec is not identified, and the shape does not fit.
    """
    try:
        said: Any = json.loads(about[KEY]) if KEY in about else None
    except ValueError:
        said = None
    if not isinstance(said, dict):
        latents_for(codec, latents)
        own = type(codec).__name__
        warn(f"{where}: the file does not identify its codec; the latents are assumed to be scaled ones of this {own}")
        return
    own = json.loads(about_codec(codec)[KEY])
    names = {
        "class": "a codec of class",
        "shapes": "a codec of other shapes",
        "scale": "one of scale",
        "shift": "one of shift",
    }
    for key, name in names.items():
        if said.get(key) != own[key]:
            shown = "" if key == "shapes" else f" {str(said.get(key))[:80]}, where this model's is {str(own[key])[:80]}"
            raise _other(f"made by {name}{shown}", where)
    if not _alike(said.get("spread"), own["spread"]):
        raise _other(f"made by a {own['class']} of the same shapes but with other weights", where)


def _spread(codec: Codec) -> list[float]:
    """Standard deviations of a few of the encoder's tensors: the same weights in any dtype, and no others."""
    while (inner := getattr(codec, "inner", None)) is not None:
        codec = inner
    state = {
        key: tensor for key, tensor in codec.state_dict().items() if tensor.is_floating_point() and tensor.ndim > 1
    }
    names = sorted(key for key in state if key.startswith("encoder")) or sorted(state)
    return [float(f"{float(state[key].float().std()):.4g}") for key in names[:LOOKED_AT]]


def _alike(said: object, own: list[float]) -> bool:
    if not isinstance(said, list) or len(said) != len(own):
        return False
    return all(isinstance(a, float | int) and math.isclose(a, b, rel_tol=APART) for a, b in zip(said, own, strict=True))


def _other(what: str, where: str) -> InputError:
    fits = "the model that they were encoded with, or encode the pictures again"
    return InputError("other-latents", f"its latents were {what}", where=where, fits=fits)
