"""The known data of a run: start latents, and the regions of pictures that masks keep."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor

from ldmkit.contracts.axes import frame_size, shown_size
from ldmkit.contracts.codec import Codec
from ldmkit.contracts.conditioner_abilities import KnowsRegion
from ldmkit.contracts.denoised import Denoised, DenoiseWrapper, Need
from ldmkit.contracts.step import Denoise
from ldmkit.errors import InputError
from ldmkit.models.abilities import able
from ldmkit.models.composed import Composed
from ldmkit.run.inputs import input_name
from ldmkit.run.latents import decode_latents, encode_pictures
from ldmkit.run.sizes import Size, fitted, latent_size, pad_to
from ldmkit.run.starts import Start

if TYPE_CHECKING:
    from ldmkit.run.prepared import Prepared


class KnownRegion(DenoiseWrapper):
    """`denoise` with the x0 estimate replaced by the known latent where the mask is 0.

    In that region a run that starts from x0_known + sigma * n ends at x0_known exactly, with every sampler.

    Args:
        known: latent (B,C,*axes).
        mask: (B or 1,1,h,w) in [0, 1], with as many axes as `known`; 1 = generate, 0 = keep.
    """

    def __init__(self, denoise: Denoise, known: Tensor, mask: Tensor) -> None:
        super().__init__(denoise)
        self.known, self.mask = known, mask

    def __call__(self, x: Tensor, sigma: float) -> Tensor:
        return self.known.lerp(self.denoise(x, sigma), self.mask)

    def estimate(self, x: Tensor, sigma: float, *needs: Need) -> Denoised:
        """Both x0 estimates with the known latent, so that their difference is 0 there, as is guidance's gradient."""
        found = super().estimate(x, sigma, *needs)
        without = found.unconditional
        return Denoised(
            self.known.lerp(found.x0, self.mask),
            None if without is None else self.known.lerp(without, self.mask),
            found.variance,
            None if found.gradient is None else found.gradient * self.mask,
        )


def latent_mask(mask: Tensor, codec: Codec) -> Tensor:
    """A pixel mask (B,1,H,W) reduced to the resolution of a codec's latents; for videos one mask for all frames.

    A latent is generated if any of its pixels is.
    """
    height, width = codec.axes[-2:]
    factors = (height.factor, width.factor)
    whole = pad_to(mask, (height.padded(mask.shape[-2]), width.padded(mask.shape[-1])))
    cells = whole if factors == (1, 1) else F.max_pool2d(whole, factors)
    return expand_frames(cells, 2 + len(codec.axes))


def expand_frames(mask: Tensor, ndim: int) -> Tensor:
    """A mask (..., h, w) with axes of length 1 inserted before h and w, up to `ndim` axes."""
    return mask.reshape(*mask.shape[:-2], *[1] * (ndim - mask.ndim), *mask.shape[-2:])


def kept(images: Tensor, original: Tensor, mask: Tensor) -> Tensor:
    """Pictures (or videos) in [0,1] with the original, in [-1,1], where the mask is 0."""
    whole, original = expand_frames(mask, images.ndim), expand_frames(original, images.ndim)
    return torch.where(whole == 0, (original + 1) * 0.5, images)


def with_kept(pipeline: Composed, prepared: Prepared, images: Tensor) -> tuple[Tensor, bool]:
    """Pictures in [0,1] with the regions that the start's mask and the conditions keep, and whether there are none."""
    plain, request = True, prepared.request
    rows = [{**given, **made} for given, made in zip(request.inputs, request.proposed, strict=True)]
    if prepared.mask is not None and prepared.original is not None:
        plain = False
        images = kept(images, prepared.original, prepared.mask)
    for name, conditioner in pipeline.conditioners.items():
        if (knowing := able(conditioner, KnowsRegion)) is None:
            continue
        for i, row in enumerate(rows):
            known = knowing.known(row[key]) if (key := input_name(name, pipeline.wiring[name])) in row else None
            if known is not None:
                plain = False
                images[i] = kept(images[i], *known)
    return images, plain


def known_latents(pipeline: Composed, starts: Sequence[Start], size: Size) -> Tensor:
    """Latents (B,C,*axes) of starts on the pipeline's device; each start is encoded once, in a batch of one.

    Raises:
        InputError: `latent-shape`: latents from another codec or of another size.
    """
    want = (pipeline.codec.channels, *latent_size(size, pipeline.codec))

    def latents(start: Start) -> Tensor:
        if start.latents is None:
            assert start.image is not None, "one of both is there"
            padded = fitted(start.image[None], pipeline.codec)
            return encode_pictures(pipeline.codec, padded)[0].to(pipeline.device)
        if tuple(start.latents.shape) != want:
            what = f"latents of shape {list(start.latents.shape)}"
            raise InputError("latent-shape", what, where="start.latents", fits=f"{list(want)} for {shown_size(size)}")
        return start.latents.to(pipeline.device)

    return _rows(starts, latents)


def known_pictures(
    pipeline: Composed, starts: Sequence[Start], known: Tensor, size: Size, seeds: Sequence[int]
) -> tuple[Tensor, Tensor]:
    """Original pictures (B,3,H,W) in [-1,1] and their masks (B,1,H,W); a start without a mask has a mask of ones.

    In a video (B,3,T,H,W) the same region of every frame is kept. Latents are decoded with the seeds of the run's rows.

    Raises:
        InputError: `size-mismatch`: a mask of another size; `mask-vectors`: data without height and width.
    """
    if not pipeline.codec.visual:
        what = f"a mask needs pictures or videos, but the latents have {len(pipeline.codec.axes)} axes"
        raise InputError("mask-vectors", what, where="start.mask", fits="a start without a mask")
    frame = frame_size(size)

    def mask(start: Start) -> Tensor:
        if start.mask is None:
            return torch.ones(1, *frame)
        if tuple(start.mask.shape[-2:]) != frame:
            got = f"{start.mask.shape[-2]}x{start.mask.shape[-1]}"
            what = f"the mask is {got}, but the picture is {shown_size(frame)}"
            raise InputError("size-mismatch", what, where="start.mask")
        return start.mask

    def picture(start: Start, latents: Tensor, seed: int) -> Tensor:
        if start.image is not None:
            return start.image
        return decode_latents(pipeline.codec, latents[None], size, seeds=[seed])[0].cpu() * 2 - 1

    masks = _rows(starts, mask)
    rows = [picture(*row) for row in zip(starts, known, seeds, strict=True)]
    return torch.stack(rows), masks


def _rows(starts: Sequence[Start], make: Callable[[Start], Tensor]) -> Tensor:
    """`make` applied to each start, as a batch; a start shared by all rows is stored once (expanded)."""
    if all(start is starts[0] for start in starts):
        one = make(starts[0])
        return one.unsqueeze(0).expand(len(starts), *one.shape)
    made: dict[int, Tensor] = {}
    for start in starts:
        if id(start) not in made:
            made[id(start)] = make(start)
    return torch.stack([made[id(start)] for start in starts])
