"""Parts that cannot have their weights elsewhere: they read those of a block from outside, or keep tensors."""

from __future__ import annotations

from typing import Any

from good_codec import PatchCodec
from good_denoiser import PatchContext, PatchNet
from torch import Tensor


class ReadsABlocksWeight(PatchNet):
    """The weight of a layer in a repeated block, read without calling the block."""

    def deep(self, h: Tensor, context: PatchContext, frame: Any) -> Tensor:
        return super().deep(h, context, frame) * self.block.out.weight.mean()


class KeepsLatents(PatchCodec):
    """The last latents, as an attribute."""

    def decode(self, latents: Tensor) -> Tensor:
        self.last = latents
        return super().decode(latents)
