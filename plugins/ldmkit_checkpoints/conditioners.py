"""Conditioners without published weights: signals passed in by the caller, and the inpainting condition."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ldmkit_denoisers.config import UNetConfig

from ldmkit import ConditionerSpec
from ldmkit.models.source import SlotPart

MASKED_IMAGE = {"order": "mask-latent", "signed": False, "hole": 0.0, "scaled": True}
"""Config of `masked-image` in Stable Diffusion's inpainting models."""


def given_vector(unet: UNetConfig) -> ConditionerSpec:
    """A vector passed in by the caller. A class or timestep index is never dropped: no index stands for "none"."""
    null: Any = "keep" if unet.vector in ("table", "timestep") else "default"
    config = {"kind": "vector", "dim": unet.vector_width}
    if unet.vector == "table":
        config["below"] = unet.vector_dim
    return ConditionerSpec(type="given", config=config, slot="vector", null=null)


def masked_image(latent_channels: int) -> ConditionerSpec:
    """The condition of Stable Diffusion's inpainting models: the mask, then the latent of the masked picture."""
    return ConditionerSpec(type="masked-image", config={**MASKED_IMAGE, "latent_channels": latent_channels})


def hint_of(channels: int) -> Mapping[str, SlotPart]:
    """What fills the slot of an adapter that reads a control picture; nothing where that is neither RGB nor grey."""
    config = {} if channels == 3 else {"channels": channels}
    return {"hint": SlotPart(ConditionerSpec(type="hint", config=config, input="hint"))} if channels in (1, 3) else {}
