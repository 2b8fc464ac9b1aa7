"""The keys of a consistency decoder's recipe."""

from __future__ import annotations

from typing import Any, Self

from pydantic import Field, model_validator

from ldmkit import Value
from ldmkit_training.bounds import MOST_STEPS
from ldmkit_training.stages.denoiser.model_section import FrozenCodecSection


class ConsistencySection(Value):
    """The decoder to train.

    Args:
        codec: a `kl` codec, whose encoder stays as it is: the decoder is for its latents.
        config: of the decoder: `unet`, and the other fields of `consistency` that are not the encoder's. Latents are
            read as they are (mean 0, deviation 1) where `latent_mean` and `latent_deviation` are not given.
        start: a consistency codec to take the decoder's weights from; relative to the recipe's folder.
    """

    codec: FrozenCodecSection
    config: dict[str, Any] = Field(default_factory=dict)
    start: str | None = None


class ConsistencyObjective(Value):
    """Consistency training without a teacher (Song et al. 2023), as improved by Song & Dhariwal 2023 (ICLR 2024).

    The estimate at each of `levels` noise levels is drawn to that at the next lower one, with the same noise; at the
    lowest, to the picture. The pseudo-Huber loss and the doubling of the levels are the latter paper's; that noise
    levels are drawn uniformly and weigh the same differs from it.

    Args:
        levels: first and last number of noise levels, equally spaced up to the decoder's first timestep; doubled at
            equal intervals of the run. The published decoder has 63.
        huber: c of sqrt(|a - b|^2 + c^2) - c, relative to the square root of the values in a picture.
        posterior: whether latents are samples of the posterior, or its mode.
    """

    levels: tuple[int, int] = (2, 64)
    huber: float = Field(default=0.00054, gt=0)
    posterior: bool = False

    @model_validator(mode="after")
    def _grows(self) -> Self:
        first, last = self.levels
        if not 1 <= first <= last <= 4096:
            raise ValueError(f"levels {first} to {last}: 1 to 4096, the first at most the last")
        return self


class ConsistencyTraining(Value):
    """
    Args:
        steps: optimiser steps of the whole run, over which the levels are doubled.
        model: the decoder, and the codec that it is for.
        objective: what is minimised.
    """

    steps: int = Field(ge=1, le=MOST_STEPS)
    model: ConsistencySection
    objective: ConsistencyObjective = ConsistencyObjective()
