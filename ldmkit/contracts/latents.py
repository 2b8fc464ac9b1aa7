"""Identification of the latents that a denoiser was trained on: the codec, with its scale and shift."""

from __future__ import annotations

from typing import Any, NamedTuple


class Latents(NamedTuple):
    """The latents of a codec.

    Args:
        codec: the codec's class.
        shapes: digest of the names and shapes of its tensors.
        scale, shift: standardised = (raw - shift) * scale; one number, or one per channel. None if not known.
    """

    codec: str
    shapes: str
    scale: Any
    shift: Any

    def __str__(self) -> str:
        return f"scale {self.scale}, shift {self.shift}"
