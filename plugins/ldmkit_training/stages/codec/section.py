"""The keys of a codec's recipe: the codec and its objective."""

from __future__ import annotations

from typing import Any, Literal, Self

from pydantic import Field, model_validator

from ldmkit import SpecError, Value
from ldmkit_training.bounds import MOST_STEPS


class CodecSection(Value):
    """The codec to train.

    Args:
        type: registered name of a codec that can be trained (`kl`, `vq`, `tiny`); null: the start's own, with its
            config, or `kl` where there is no start.
        config: its config.
        start: what to take the weights from, as `ldmkit.load_codec` takes it; relative to the recipe's folder.
        train: all of it, or the `decoder` alone: its pictures get better while the latents stay what they are, so that
            a denoiser that was trained on them fits. `objective.statistics` must be none then.
    """

    type: str | None = None
    config: dict[str, Any] = Field(default_factory=dict)
    start: str | None = None
    train: Literal["all", "decoder"] = "all"

    @model_validator(mode="after")
    def _whose(self) -> Self:
        if self.config and self.type is None and self.start is not None:
            fits = "the `type` that it is of, or no config: the start has its own"
            raise SpecError("config-without-type", "a config, but no type", where="model.config", fits=fits)
        return self


class PerceptualSection(Value):
    """A distance between pictures as people see them.

    Args:
        type: registered name (`similarity`, `structure`, `lpips`, `none`).
        config: its config.
        files: local files with its weights; relative to the recipe's folder.
        weight: factor of its term.
    """

    type: str = "similarity"
    config: dict[str, Any] = Field(default_factory=dict)
    files: tuple[str, ...] = ()
    weight: float = Field(default=1.0, ge=0)


class DiscriminatorSection(Value):
    """A patch discriminator (Isola et al. 2017) against which the codec is trained.

    Args:
        layers: convolutions of stride 2.
        width: channels of the first one; doubled by each further one, up to eight times.
        norm: `batch` as published; `group` or `none` do not mix rows, so that small batches and several processes give
            the same losses.
        loss: of the discriminator.
        start: optimiser step at which it begins.
        weight: factor of the codec's adversarial term, on top of the adaptive one.
        adaptive: scale the adversarial term to the reconstruction's gradient on the codec's last layer
            (Esser et al. 2021, equation 7).
    """

    layers: int = Field(default=3, ge=1, le=8)
    width: int = Field(default=64, ge=8, multiple_of=8)
    norm: Literal["batch", "group", "none"] = "group"
    loss: Literal["hinge", "vanilla"] = "hinge"
    start: int = Field(default=50001, ge=0)
    weight: float = Field(default=0.5, gt=0)
    adaptive: bool = True


class CodecObjective(Value):
    """The first stage's loss (Rombach et al. 2022, appendix G).

    The published KL codecs have `reduction` sum, `learn_logvar` true and a discriminator; the VQ ones `reduction` mean.

    Args:
        pixel: norm of the pixels' difference.
        reduction: mean of the reconstruction term over values of a picture, or their sum (which makes the other terms
            that much lighter).
        perceptual: distance added to the pixels' difference.
        kl_weight: of the KL divergence in nats, summed over a latent.
        codebook_weight: of the codebook loss; the commitment weight inside it is the codec's own `beta`.
        logvar: start of the logarithm of the reconstruction's variance, by which its term is divided.
        learn_logvar: train it.
        discriminator: none, or the one to train against.
        statistics: what is measured after training, and stored in the codec: mean and deviation of each latent
            channel, one deviation for all without a mean, or nothing.
    """

    pixel: Literal["l1", "l2"] = "l1"
    reduction: Literal["mean", "sum"] = "mean"
    perceptual: PerceptualSection = PerceptualSection()
    kl_weight: float = Field(default=1e-6, ge=0)
    codebook_weight: float = Field(default=1.0, ge=0)
    logvar: float = 0.0
    learn_logvar: bool = False
    discriminator: DiscriminatorSection | None = None
    statistics: Literal["channel", "scale", "none"] = "channel"


class CodecConfig(Value):
    """The codec in `model`. With `steps: 0` it stays as it is, and only its latents are measured.

    Args:
        steps: optimiser steps of the whole run.
        model: the codec to train.
        objective: what is minimised.
    """

    steps: int = Field(ge=0, le=MOST_STEPS)
    model: CodecSection = CodecSection()
    objective: CodecObjective = CodecObjective()
