"""Whether a codec's latents are those that a denoiser was trained on."""

from __future__ import annotations

import hashlib

from ldmkit.contracts.codec import Codec
from ldmkit.contracts.denoiser import Denoiser
from ldmkit.contracts.latents import Latents
from ldmkit.errors import CompositionError


def latents_of(codec: Codec) -> Latents:
    """The latents of a codec, or of the one that it wraps."""
    while (inner := getattr(codec, "inner", None)) is not None:
        codec = inner
    shapes = sorted((key, tuple(tensor.shape)) for key, tensor in codec.state_dict().items())
    digest = hashlib.sha256(repr(shapes).encode()).hexdigest()
    scale, shift = (getattr(codec.config, name, neutral) for name, neutral in (("scale", 1.0), ("shift", 0.0)))
    return Latents(type(codec).__name__, digest, scale, shift)


def check_latents_fit(codec: Codec, denoiser: Denoiser) -> None:
    """Whether a codec's latents have the scale that a denoiser was trained on, as far as both say.

    A codec of other shapes (a tiny one in a large one's place) may well have another scale for the same latents.

    Raises:
        CompositionError: `unknown-scale`: the codec's own file does not say it; `scale-mismatch`: the denoiser was
            loaded with a codec of the same shapes whose latents are scaled or shifted otherwise.
    """
    mine, theirs = latents_of(codec), denoiser.latents
    same = theirs is not None and theirs[:2] == mine[:2]
    name = type(denoiser).__name__
    came = "" if theirs is None else f", which came with latents of {theirs} (a {theirs.codec})"
    if not codec.standardises:
        what = f"no one says the scale of the latents of codec {mine.codec}, for denoiser {name}{came}"
        number = theirs.scale if same and theirs is not None else "number"
        raise CompositionError("unknown-scale", what, fits=f"ldmkit.load_codec(..., scale={number})")
    if same and theirs is not None and theirs[2:] != mine[2:]:
        what = f"the latents of codec {mine.codec} have {mine}; denoiser {name}{came}"
        fits = f"ldmkit.load_codec(..., scale={theirs.scale}), or denoiser.latents = None where they differ on purpose"
        raise CompositionError("scale-mismatch", what, fits=fits)
