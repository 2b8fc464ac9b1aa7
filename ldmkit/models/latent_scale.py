"""Checks that a codec's latents are those on which a denoiser was trained."""

from __future__ import annotations

import hashlib

from ldmkit.contracts.codec import Codec
from ldmkit.contracts.denoiser import Denoiser
from ldmkit.contracts.latents import Latents
from ldmkit.errors import CompositionError


def latents_of(codec: Codec) -> Latents:
    """The latents of a codec, or of the codec that it wraps."""
    while (inner := getattr(codec, "inner", None)) is not None:
        codec = inner
    shapes = sorted((key, tuple(tensor.shape)) for key, tensor in codec.state_dict().items())
    digest = hashlib.sha256(repr(shapes).encode()).hexdigest()
    scale, shift = (getattr(codec.config, name, neutral) for name, neutral in (("scale", 1.0), ("shift", 0.0)))
    return Latents(type(codec).__name__, digest, scale, shift)


def check_latents_fit(codec: Codec, denoiser: Denoiser) -> None:
    """Check that a codec's latents have the scale on which a denoiser was trained, if both are known.

    A codec with other shapes (a tiny codec replacing a large one) may use another scale for the same latents.

    Raises:
        CompositionError: `unknown-scale`: the codec's file does not contain the scale; `scale-mismatch`: the denoiser
            was loaded with a codec of the same shapes but with another scale or shift.
    """
    mine, theirs = latents_of(codec), denoiser.latents
    same_shapes = theirs is not None and theirs[:2] == mine[:2]
    name = type(denoiser).__name__
    trained = "" if theirs is None else f", which was loaded with {theirs} ({theirs.codec})"
    if not codec.standardises:
        what = f"the latent scale of codec {mine.codec} is unknown, for denoiser {name}{trained}"
        number = theirs.scale if same_shapes and theirs is not None else "number"
        raise CompositionError("unknown-scale", what, fits=f"ldmkit.load_codec(..., scale={number})")
    if same_shapes and theirs is not None and theirs[2:] != mine[2:]:
        what = f"the latents of codec {mine.codec} have {mine}, unlike those of denoiser {name}{trained}"
        fits = f"ldmkit.load_codec(..., scale={theirs.scale}), or denoiser.latents = None if this is intended"
        raise CompositionError("scale-mismatch", what, fits=fits)
