"""A ControlNet with diffusers' keys, of which there is no config.json."""

from __future__ import annotations

from ldmkit_adapters.controlnet import ControlNetConfig

from ldmkit import PartSpec
from ldmkit_checkpoints.conditioners import hint_of
from ldmkit_checkpoints.diffusers.control.inferred import Shapes, hint_widths, unet_of_diffusers
from ldmkit_checkpoints.diffusers.controlnet import controlnet_diffusers
from ldmkit_checkpoints.diffusers.parts import Component

FIRST = "controlnet_cond_embedding.conv_in.weight"
"""Key that every network of this kind has: the hint encoder's first convolution."""


def controlnet_of_keys(shapes: Shapes, where: str) -> Component:
    """The ControlNet of a file.

    Raises:
        SourceError: `config-needed` for another network than Stable Diffusion's 1, 2 and XL.
    """
    hints = hint_widths(shapes, "diffusers")
    data = {"unet": unet_of_diffusers(shapes, where), "hint_channels": shapes[FIRST][1], "hint_widths": hints}
    config = ControlNetConfig.of(data)
    spec = PartSpec(type="controlnet", config=config.model_dump(mode="json", exclude_defaults=True))
    return Component(spec, controlnet_diffusers(config), slots=hint_of(config.hint_channels))
