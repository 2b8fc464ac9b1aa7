"""A distance by edges."""

from __future__ import annotations

from torch import Tensor

import ldmkit


class Edges(ldmkit.Perceptual):
    """Mean square difference of the pictures and of their neighbouring pixels' differences."""

    api = 1

    def forward(self, images: Tensor, reference: Tensor) -> Tensor:
        """(B,) distances."""
        off = (images - reference).float()
        across = off[..., :, 1:] - off[..., :, :-1]
        down = off[..., 1:, :] - off[..., :-1, :]
        return off.square().mean((1, 2, 3)) + across.square().mean((1, 2, 3)) + down.square().mean((1, 2, 3))
