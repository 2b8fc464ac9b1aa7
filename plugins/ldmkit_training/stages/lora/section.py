"""The keys of a LoRA's recipe."""

from __future__ import annotations

from typing import Annotated, Self, TypeAlias

from ldmkit_checkpoints.lora.writing import LoraLayout
from pydantic import Field, model_validator

from ldmkit import SpecError, Value
from ldmkit_training.stages.started import StartedConfig

Rank: TypeAlias = Annotated[int, Field(ge=1, le=8192)]
Pattern: TypeAlias = Annotated[str, Field(min_length=1)]

ATTENTION = ("to_q", "to_k", "to_v", "to_out")
"""The projections of every attention, which most published files change."""


class LoraSection(Value):
    """Which layers are changed, and how.

    Args:
        rank: of each change.
        alpha: a change is multiplied with alpha / rank; null: the rank, which makes that 1.
        targets: layers of the denoiser, by patterns (`*` stands for any characters) for whole paths or their ends, in
            ldmkit's or published names: `to_q`, `mid.*`, `ff.net.*`, `conv_1`.
        conditioners: name -> layers of a conditioner, by patterns: `text: [q_proj, v_proj]`.
        ranks: pattern -> rank of the layers that it fits; the last pattern counts.
        dora: lengths of the weights' rows are trained as well (Liu et al. 2024).
        dropout: share of a layer's inputs that its change does not see in training.
        layout: of the file: keys as diffusers and peft write them, or as kohya's scripts do.
    """

    rank: Rank = 8
    alpha: float | None = Field(default=None, gt=0, allow_inf_nan=False)
    targets: tuple[Pattern, ...] = ATTENTION
    conditioners: dict[str, tuple[Pattern, ...]] = Field(default_factory=dict)
    ranks: dict[Pattern, Rank] = Field(default_factory=dict)
    dora: bool = False
    dropout: float = Field(default=0.0, ge=0, lt=1)
    layout: LoraLayout = "diffusers"

    @model_validator(mode="after")
    def _something(self) -> Self:
        if not self.targets and not any(self.conditioners.values()):
            fits = "targets of the denoiser, or of conditioners"
            raise SpecError("nothing-to-train", "no layer is to be changed", where="lora.targets", fits=fits)
        return self


class LoraConfig(StartedConfig):
    """The changes of a pipeline's weights.

    Args:
        lora: which layers are changed, and how.
    """

    lora: LoraSection = LoraSection()
