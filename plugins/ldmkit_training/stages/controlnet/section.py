"""The keys of a ControlNet's recipe."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from ldmkit import Value
from ldmkit.bounds import MAX_LEVELS, Width
from ldmkit_training.stages.started import StartedConfig

WIDTHS = (16, 32, 96, 256)
"""Channels of the published hint encoders, which halve the size three times."""


class ControlNetSection(Value):
    """A new ControlNet, or one that goes on learning.

    Args:
        input: name of the input that is the hint. It is never dropped.
        channels: of the hint: 3, or 1 for grey ones.
        widths: channels of the hint's encoder, every one after the first at half the size; null: the published ones, as
            many as the codec's factor asks for.
        start: a ControlNet to go on with, in place of a copy of the U-Net: what `Pipeline.with_adapter_file` reads; a
            path is relative to the recipe's folder, or to the working directory.
    """

    input: str = Field(default="hint", min_length=1)
    channels: Literal[1, 3] = 3
    widths: tuple[Width, ...] | None = Field(default=None, min_length=1, max_length=MAX_LEVELS)
    start: str | None = None


class ControlNetRecipe(StartedConfig):
    """A ControlNet of a pipeline's U-Net.

    Args:
        controlnet: what it reads, and where it starts from.
    """

    controlnet: ControlNetSection = ControlNetSection()
