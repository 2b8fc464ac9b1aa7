"""Conditioners of published models that are not published with them: given by the caller, or made of a picture."""

from __future__ import annotations

from typing import Any

from ldmkit_denoisers.config import UNetConfig

from ldmkit.models.spec import ConditionerSpec

MASKED_IMAGE = {"order": "mask-latent", "signed": False, "hole": 0.0, "scaled": True}
"""Config of `masked-image` in Stable Diffusion's inpainting models."""


def given_vector(unet: UNetConfig) -> ConditionerSpec:
    """A ready-made vector for a U-Net; a class or a timestep is never dropped, since no number means none."""
    null: Any = "keep" if unet.vector in ("table", "timestep") else "default"
    config = {"kind": "vector", "dim": unet.vector_width}
    return ConditionerSpec(type="given", config=config, slot="vector", null=null)


def masked_image(latent_channels: int) -> ConditionerSpec:
    """The condition of Stable Diffusion's inpainting models: a mask, then the latent of the masked picture."""
    return ConditionerSpec(type="masked-image", config={**MASKED_IMAGE, "latent_channels": latent_channels})
