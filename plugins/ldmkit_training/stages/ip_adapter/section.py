"""The keys of an IP-Adapter's recipe."""

from __future__ import annotations

from typing import Self

from pydantic import Field, model_validator

from ldmkit import SpecError, Value
from ldmkit.bounds import Length
from ldmkit_training.stages.denoiser.dropout import Share
from ldmkit_training.stages.started import StartedConfig

TOKENS = 4
"""Tokens of a picture in the published plain IP-Adapters."""


class PromptDrop(Value):
    """Shares of rows that train without conditions: each row falls under one of these rules, or under none.

    Args:
        image: without the picture; in the plain form its embedding is then zeros.
        text: with the picture alone, without texts and whatever else the base may be guided by.
        both: without any.
    """

    image: Share = 0.05
    text: Share = 0.05
    both: Share = 0.05

    @model_validator(mode="after")
    def _shares(self) -> Self:
        total = self.image + self.text + self.both
        if total > 1 + 1e-9:
            what = f"image, text and both add up to {total:.4g}"
            raise SpecError("shares", what, where="ip_adapter.drop", fits="at most 1")
        return self


class IPAdapterSection(Value):
    """A new IP-Adapter, or one that goes on learning.

    Args:
        encoder: folder of the image encoder (transformers' CLIPVisionModelWithProjection), or a pipeline's with
            `image_encoder`; a path is relative to the recipe's folder, or to the working directory.
        tokens: that the network attends to for a picture; null: 4, as published, or those of `start`.
        start: an IP-Adapter to go on with, in place of a new one: what `Pipeline.with_adapter_file` reads; a path as
            for `encoder`.
        drop: which rows train without the picture or the other conditions, beside what `objective.dropout` says.
    """

    encoder: str = Field(min_length=1)
    tokens: Length | None = None
    start: str | None = None
    drop: PromptDrop = PromptDrop()

    @model_validator(mode="after")
    def _new_or_started(self) -> Self:
        if self.start is not None and self.tokens is not None:
            raise ValueError("tokens are those of `start`: leave one of them out")
        return self


class IPAdapterRecipe(StartedConfig):
    """An IP-Adapter of a pipeline's U-Net.

    Args:
        ip_adapter: what reads the pictures, and where it starts from.
    """

    ip_adapter: IPAdapterSection
