"""What is known at the start of a run: its latents, and what a mask keeps of its pictures."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from ldmkit.contracts.denoised import Denoised, DenoiseWrapper, Need
from ldmkit.contracts.step import Denoise
from ldmkit.errors import InputError
from ldmkit.models.composed import Composed
from ldmkit.run.latents import decode_latents, encode_pictures
from ldmkit.run.sizes import Size, latent_size, pad
from ldmkit.run.starts import Start


class KnownRegion(DenoiseWrapper):
    """`denoise` with the x0 estimate replaced by the known latent where the mask is 0.

    A run that starts on x0_known + sigma * n then stays on it there exactly, under every sampler.

    Args:
        known: latent (B,C,h,w).
        mask: (B or 1,1,h,w) in [0, 1]; 1 = generate, 0 = keep.
    """

    def __init__(self, denoise: Denoise, known: Tensor, mask: Tensor) -> None:
        super().__init__(denoise)
        self.known, self.mask = known, mask

    def __call__(self, x: Tensor, sigma: float) -> Tensor:
        return self.known.lerp(self.denoise(x, sigma), self.mask)

    def estimate(self, x: Tensor, sigma: float, *needs: Need) -> Denoised:
        """Both estimates of x0 with the known latent, so that a direction away from one of them stays on it too."""
        found = super().estimate(x, sigma, *needs)
        without = found.unconditional
        return Denoised(
            self.known.lerp(found.x0, self.mask),
            None if without is None else self.known.lerp(without, self.mask),
            found.variance,
        )


def latent_mask(mask: Tensor, factor: int) -> Tensor:
    """A pixel mask (B,1,H,W) at latent resolution: a latent is generated if any of its pixels is."""
    return mask if factor == 1 else F.max_pool2d(mask, factor)


def kept(images: Tensor, original: Tensor, mask: Tensor) -> Tensor:
    """Pictures in [0,1] with those of the original, in [-1,1], where the mask is 0."""
    return torch.where(mask == 0, (original + 1) * 0.5, images)


def known_latents(pipeline: Composed, starts: Sequence[Start], size: Size) -> Tensor:
    """Latents (B,C,h,w) of starts on the pipeline's device; each start is encoded once, by itself, as in a run alone.

    Raises:
        InputError: `latent-shape`: latents of another codec, or of another size.
    """
    want = (pipeline.codec.channels, *latent_size(size, pipeline.codec))

    def latents(start: Start) -> Tensor:
        if start.latents is None:
            assert start.image is not None, "one of both is there"
            padded = pad(start.image[None], pipeline.codec.multiple)
            return encode_pictures(pipeline.codec, padded)[0].to(pipeline.device)
        if tuple(start.latents.shape) != want:
            what = f"latents of shape {list(start.latents.shape)}"
            raise InputError("latent-shape", what, where="start.latents", fits=f"{list(want)} for {size[0]}x{size[1]}")
        return start.latents.to(pipeline.device)

    return _rows(starts, latents)


def known_pictures(pipeline: Composed, starts: Sequence[Start], known: Tensor, size: Size) -> tuple[Tensor, Tensor]:
    """Pictures (B,3,H,W) in [-1,1] that masks keep in part, and the masks (B,1,H,W); without a mask nothing is kept.

    Raises:
        InputError: `size-mismatch`: a mask of another size.
    """

    def mask(start: Start) -> Tensor:
        if start.mask is None:
            return torch.ones(1, *size)
        if tuple(start.mask.shape[-2:]) != size:
            got = f"{start.mask.shape[-2]}x{start.mask.shape[-1]}"
            what = f"the mask is {got}, the picture {size[0]}x{size[1]}"
            raise InputError("size-mismatch", what, where="start.mask")
        return start.mask

    masks = _rows(starts, mask)
    rows = [
        decode_latents(pipeline.codec, latents[None], size)[0].cpu() * 2 - 1 if start.image is None else start.image
        for start, latents in zip(starts, known, strict=True)
    ]
    return torch.stack(rows), masks


def _rows(starts: Sequence[Start], make: Callable[[Start], Tensor]) -> Tensor:
    """What each start gives, as a batch; one that stands in all rows is held once."""
    if all(start is starts[0] for start in starts):
        return make(starts[0]).unsqueeze(0).expand(len(starts), -1, -1, -1)
    made: dict[int, Tensor] = {}
    for start in starts:
        if id(start) not in made:
            made[id(start)] = make(start)
    return torch.stack([made[id(start)] for start in starts])
