"""Which latents a denoiser was trained on: whose, scaled and shifted how."""

from __future__ import annotations

from typing import Any, NamedTuple


class Latents(NamedTuple):
    """The latents of a codec.

    Args:
        codec: its class.
        shapes: digest of the names and shapes of its tensors.
        scale, shift: standardised = (raw - shift) * scale, a number or one a channel; a scale of None is not known.
    """

    codec: str
    shapes: str
    scale: Any
    shift: Any

    def __str__(self) -> str:
        return f"scale {self.scale}, shift {self.shift}"
