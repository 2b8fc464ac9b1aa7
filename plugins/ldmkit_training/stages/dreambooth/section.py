"""The keys of a recipe with prior preservation."""

from __future__ import annotations

from typing import Any

from pydantic import Field

from ldmkit import Value
from ldmkit.bounds import MAX_STEPS
from ldmkit_training.stages.lora.section import LoraConfig


class PriorSection(Value):
    """What the model must go on drawing as it does.

    Args:
        inputs: of the class pictures, by name: `text: a dog`. They are drawn before the first step by the model as it
            was, with its defaults, in the size of the training pictures; picture i has the recipe's seed + i.
        count: number of class pictures.
        weight: of their loss, beside 1 for the data's.
        steps: of the sampler; null: the model's default.
        guidance: scale; null: the model's default.
        batch: pictures drawn at once.
    """

    inputs: dict[str, Any] = Field(min_length=1)
    count: int = Field(default=100, ge=1, le=100_000)
    weight: float = Field(default=1.0, gt=0, allow_inf_nan=False)
    steps: int | None = Field(default=None, ge=1, le=MAX_STEPS)
    guidance: float | None = None
    batch: int = Field(default=8, ge=1, le=1024)


class DreamBoothConfig(LoraConfig):
    """A LoRA of a subject.

    Args:
        prior: its class, which stays what it is.
    """

    prior: PriorSection
