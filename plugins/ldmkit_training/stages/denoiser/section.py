"""The objective section of a denoiser's recipe."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from ldmkit import Value
from ldmkit_training.stages.denoiser.dropout import ConditionDropout
from ldmkit_training.stages.denoiser.noises import PyramidNoise
from ldmkit_training.stages.denoiser.times import Times, UniformTimes
from ldmkit_training.stages.denoiser.weightings import Uniform, Weighting


class LogVariance(Value):
    """log of the loss's expected size by timestep: the loss becomes l / exp(logvar) + logvar (latent diffusion's code).

    Args:
        init: where all timesteps start.
        train: learn it along; it is not part of the model that is saved.
    """

    init: float = 0.0
    train: bool = False


class MaskedLoss(Value):
    """Weights errors by a mask of each picture, which the model does not read.

    Args:
        input: name of the masks among the data's inputs (after `data.inputs`); 1 (white) is where errors count. A
            sample without one counts whole.
        outside: weight of errors elsewhere.
    """

    input: str = Field(default="mask", min_length=1)
    outside: float = Field(default=0.0, ge=0, le=1)


class DenoiserObjective(Value):
    """mean over rows of factor(sigma) * |F(x, t, conditions) - target|^p; what F predicts is the process's to say.

    Args:
        norm: squared (l2) or absolute (l1) error.
        times: distribution of noise levels.
        weighting: factor by noise level.
        dropout: which conditions are replaced by their nulls.
        posterior: train on a sample of the codec's posterior, or on its mode.
        simple, elbo: weights of the loss above, and of the variational bound by timestep (`elbo_weights`).
        variance: weight of the bound of a learned variance (L_hybrid: 0.001), which the second half of the network's
            2 C output channels interpolates; its gradient reaches that half alone.
        logvar: None leaves it out.
        mask: weights errors by masks; None: no masks.
        noise_offset: deviation of a number added to each channel's noise, so that a picture's mean brightness is learnt
            (0.05 to 0.1 as a rule); 0: none.
        pyramid: noise of several resolutions; None: white noise.
    """

    norm: Literal["l2", "l1"] = "l2"
    times: Times = UniformTimes()
    weighting: Weighting = Uniform()
    dropout: ConditionDropout = ConditionDropout()
    posterior: Literal["sample", "mode"] = "sample"
    simple: float = Field(default=1.0, ge=0)
    elbo: float = Field(default=0.0, ge=0)
    variance: float = Field(default=0.0, ge=0)
    logvar: LogVariance | None = None
    mask: MaskedLoss | None = None
    noise_offset: float = Field(default=0.0, ge=0, le=10)
    pyramid: PyramidNoise | None = None

    @model_validator(mode="after")
    def _something(self) -> Self:
        if not self.simple and not self.elbo:
            raise ValueError("simple and elbo are both 0: there is no loss")
        if self.variance and (self.mask or self.noise_offset or self.pyramid):
            raise ValueError("variance needs white noise and whole pictures: no mask, noise_offset or pyramid")
        return self
