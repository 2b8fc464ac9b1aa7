"""Mean and deviation of a codec's latents, measured on pictures and stored in it."""

from __future__ import annotations

import copy
from collections.abc import Iterable
from typing import Literal

import torch
from torch import Tensor

from ldmkit import Batch, Codec, CompositionError, InputError

DEAD = 1e-6
"""Deviation, relative to the largest mean (or to 1), below which a latent channel counts as constant."""


@torch.no_grad()
def measured(codec: Codec, batches: Iterable[Batch], kind: Literal["channel", "scale"] = "channel") -> Codec:
    """The same codec (its tensors are shared) with a scale and shift that standardise its latents over the batches.

    Latents are samples of the posterior, as a denoiser is trained on.

    Args:
        codec: with `scale` and `shift` in its config; those it has do not matter.
        batches: with pictures.
        kind: `channel`: mean 0 and deviation 1 of each channel; `scale`: one factor for all, and no shift, as in
            Rombach et al. 2022, appendix G.

    Raises:
        CompositionError: `no-statistics`: the codec has no scale and shift.
        InputError: `no-pictures`: no batch has any; `dead-latent`: a channel that never changes.
    """
    if not {"scale", "shift"} <= set(type(codec.config).model_fields):
        what = f"{type(codec).__name__} has no scale and shift to store the latents' statistics in"
        raise CompositionError("no-statistics", what, where="objective.statistics", fits="'none'")
    count, total, squares = 0, torch.zeros(codec.channels).double(), torch.zeros(codec.channels).double()
    training = codec.training
    codec.eval()
    for batch in batches:
        if batch.images is None:
            continue
        raw = _raw(codec, batch).double().movedim(1, 0).flatten(1).cpu()
        count += raw.shape[1]
        total += raw.sum(1)
        squares += raw.square().sum(1)
    codec.train(training)
    if not count:
        raise InputError("no-pictures", "no batch has pictures to measure the latents of", where="data")
    mean = total / count
    deviation = (squares / count - mean.square()).clamp(min=0).sqrt()
    if kind == "scale":
        deviation = (squares.sum() / count / codec.channels - mean.mean().square()).clamp(min=0).sqrt()[None]
    dead = deviation <= DEAD * mean.abs().max().clamp(min=1)
    if bool(dead.any()):
        what = f"latent channels {dead.nonzero().flatten().tolist()} never change"
        raise InputError("dead-latent", what, where="objective.statistics", fits="a codec that was trained")
    if kind == "scale":
        return rescaled(codec, scale=float(1 / deviation), shift=0.0)
    return rescaled(codec, scale=tuple((1 / deviation).tolist()), shift=tuple(mean.tolist()))


def rescaled(codec: Codec, **changes: object) -> Codec:
    """The same weights with another `scale` and `shift`."""
    other = copy.copy(codec)
    other.config = codec.config.of({**dict(codec.config), **changes}, f"{type(codec).__name__} config")
    return other


def _raw(codec: Codec, batch: Batch) -> Tensor:
    assert batch.images is not None
    height, width = (side // codec.factor for side in batch.images.shape[-2:])
    noise = batch.draws.normal("statistics", (codec.channels, height, width))
    return codec.raw(codec.encode(batch.images, noise.to(batch.images)))
