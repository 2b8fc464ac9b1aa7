"""The training objective of diffusion models, for any process."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

from ldmkit.contracts.denoiser import Denoiser
from ldmkit.contracts.process import Process, column
from ldmkit.contracts.signals import Signal
from ldmkit.contracts.step import Context

Weighting = Callable[[float], float]
"""Noise level -> weight of a sample's loss."""


def diffusion_loss(
    denoiser: Denoiser,
    process: Process,
    x0: Tensor,
    signals: Mapping[str, Signal] | Context,
    *,
    noise: Tensor,
    sigma: Sequence[float],
    weighting: Weighting | None = None,
    norm: str = "l2",
) -> Tensor:
    """Per-sample loss of the network's output against the process's target (Ho et al. 2020, eq. 14, generalised).

    Args:
        x0: clean latents (B,C,h,w).
        signals: conditions by slot, from `Conditioning.view` or `.dropout`, or a prepared context.
        noise: unit normal, x0's shape.
        sigma: noise level of each sample, e.g. `process.sigma(u)` for uniform u.
        weighting: noise level -> weight; None weights all levels equally.
        norm: "l2" or "l1".

    Returns:
        (B,) float32 losses, each the mean over its sample's elements.
    """
    predicted = predict(denoiser, process, x0, signals, noise=noise, sigma=sigma)
    per_sample = prediction_errors(predicted, process, x0, noise=noise, sigma=sigma, norm=norm)
    if weighting is None:
        return per_sample
    weights = torch.tensor([weighting(s) for s in sigma], dtype=per_sample.dtype, device=per_sample.device)
    return per_sample * weights


def predict(
    denoiser: Denoiser,
    process: Process,
    x0: Tensor,
    signals: Mapping[str, Signal] | Context,
    *,
    noise: Tensor,
    sigma: Sequence[float],
) -> Tensor:
    """What the network predicts (B,C,h,w), float32, for noised x0; arguments as for `diffusion_loss`."""
    return output(denoiser, process, x0, signals, noise=noise, sigma=sigma)[:, : x0.shape[1]]


def output(
    denoiser: Denoiser,
    process: Process,
    x0: Tensor,
    signals: Mapping[str, Signal] | Context,
    *,
    noise: Tensor,
    sigma: Sequence[float],
) -> Tensor:
    """All output channels, float32; more than x0's where the network learns a variance. Arguments as for `predict`."""
    scale = column([process.scalings(s)[2] for s in sigma], x0)
    t = torch.tensor([process.time(s) for s in sigma], dtype=torch.float32, device=x0.device)
    noisy = (x0 + column(list(sigma), x0) * noise) * scale
    context = signals if isinstance(signals, Context) else denoiser.prepare(signals)
    made: Tensor = denoiser(noisy.to(denoiser.dtype), t, context)
    return made.float()


def prediction_errors(
    predicted: Tensor,
    process: Process,
    x0: Tensor,
    *,
    noise: Tensor,
    sigma: Sequence[float],
    norm: str = "l2",
    weights: Tensor | None = None,
) -> Tensor:
    """(B,) mean squared ("l2") or absolute ("l1") error of a prediction, per row.

    Args:
        weights: (B,1,h,w), of each pixel's error before the mean is taken over all of them; None: 1.
    """
    difference = predicted - process.target(x0, noise, sigma).float()
    losses = difference.abs() if norm == "l1" else difference.square()
    if weights is not None:
        losses = losses * weights.to(losses)
    per_sample: Tensor = losses.flatten(1).mean(1)
    return per_sample
