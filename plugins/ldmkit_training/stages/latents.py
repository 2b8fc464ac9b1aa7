"""The latents of a batch, cached or encoded here."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ldmkit import Batch, Codec


def conditions_size(batch: Batch, codec: Codec) -> tuple[int, ...]:
    """The size that the conditions of a batch are made for; vectors have none, whatever they are made of."""
    return () if codec.embeds else batch.size


def latent_sides(codec: Codec, size: Sequence[int]) -> tuple[int, ...]:
    """The size of the latents of pictures (height, width); vectors have none."""
    return () if codec.embeds else tuple(side // codec.factor for side in size)


def latents_of(batch: Batch, codec: Codec, device: torch.device, *, sample: bool) -> Tensor:
    """(B,C,h,w) float32 on a device: a sample of the posterior with the batch's own draws, or its mode."""
    if batch.latents is not None:
        mode = batch.latents.to(device, torch.float32)
        if batch.deviation is None or not sample:
            return mode
        return mode + batch.deviation.to(mode) * batch.draws.normal("posterior", mode.shape[1:]).to(mode)
    assert batch.images is not None, "a batch has pictures or latents"
    shape = (codec.channels, *latent_sides(codec, batch.images.shape[-2:]))
    noise = batch.draws.normal("posterior", shape) if sample else None
    # in the codec's own precision, so that it makes no difference whether latents were cached
    with torch.no_grad(), torch.autocast(device.type, enabled=False):
        images = batch.images.to(codec.device, codec.dtype)
        return codec.encode(images, None if noise is None else noise.to(images)).to(device, torch.float32)
