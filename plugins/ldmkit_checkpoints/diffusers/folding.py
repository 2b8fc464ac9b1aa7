"""Folding a codec's scale and shift into its weights, for programs that support neither."""

from __future__ import annotations

import copy

import torch
from ldmkit_codecs.kl import KLCodec, KLConfig
from torch import Tensor

from ldmkit import Codec, SourceError


def standard(codec: Codec) -> Codec:
    """The same codec with at most one scale for all latent channels.

    A KL codec's shift and per-channel scales are folded into the 1x1 convolutions around the latent. A codec with
    neither is returned unchanged.

    Raises:
        SourceError: `not-expressible`: the codec has no such convolutions.
    """
    config = codec.config
    if not isinstance(codec, KLCodec) or not isinstance(config, KLConfig):
        return codec
    if config.shift == 0 and not isinstance(config.scale, tuple):
        return codec
    if codec.quant_conv is None or codec.post_quant_conv is None:
        what = "diffusers has no pipeline with a latent mean, and the codec has no 1x1 convolutions to fold it into"
        raise SourceError("not-expressible", what, where="codec")
    scale, shift = (_channels(values, codec.channels) for values in (config.scale, config.shift))
    folded = copy.deepcopy(codec)
    folded.config = config.model_copy(update={"scale": 1.0, "shift": 0.0})
    assert folded.quant_conv is not None and folded.post_quant_conv is not None
    with torch.no_grad():
        before, after = folded.quant_conv, folded.post_quant_conv
        # z = (raw - shift) * scale; its log-variance grows by 2 log |scale|
        weight, bias = before.weight.double(), _bias(before)
        both = torch.cat([scale, torch.ones_like(scale)])
        before.weight.copy_(weight * both[:, None, None, None])
        before.bias.copy_(torch.cat([(bias[: len(scale)] - shift) * scale, bias[len(scale) :] + 2 * scale.abs().log()]))
        # raw = z / scale + shift
        weight, bias = after.weight.double(), _bias(after)
        after.weight.copy_(weight / scale[None, :, None, None])
        after.bias.copy_(bias + weight[:, :, 0, 0] @ shift)
    return folded


def _channels(values: float | tuple[float, ...], count: int) -> Tensor:
    numbers = values if isinstance(values, tuple) else (values,) * count
    return torch.tensor(numbers, dtype=torch.float64)


def _bias(convolution: torch.nn.Conv2d) -> Tensor:
    assert convolution.bias is not None
    return convolution.bias.double()
