"""Guidance by a picture, without training, through the decoder and the network."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import ClassVar, Literal, Self

import torch
import torch.nn.functional as F
from pydantic import ConfigDict, Field, model_validator
from pydantic.json_schema import SkipJsonSchema
from torch import Tensor

from ldmkit import Evaluate, Example, Guidance, InputError, SpecError, View
from ldmkit.bounds import SignedScale
from ldmkit_processes.guidance.cfg import CFG, Interval, NoGuidance, outside
from ldmkit_processes.guidance.gradient import gradient
from ldmkit_processes.guidance.nested import Nested

Transform = Literal["identity", "downsample", "mask", "grey", "crop"]
GREY = (0.299, 0.587, 0.114)
"""Luma weights of ITU-R BT.601."""


class ImageGuidance(Guidance):
    """Rombach et al. 2022, appendix C: log p(y | z_t) = -1/2 |y - T(D(z_0(z_t)))|^2 guides the estimate.

    x0 + scale sigma^2 grad_x log p(y | x): the same change as classifier guidance makes, with the sum of squares
    over a sample's pixels, and with the base guidance's x0 inside.

    Args:
        target: y, (B or 1, C, H', W'), in the decoder's range [-1, 1] and in the size that T returns.
        transform: T: "identity"; "downsample" by `factor` (bicubic, antialiased); "mask": only where `mask` is 1;
            "grey": BT.601 luma, one channel; "crop" to `box`; or any differentiable function of pictures.
        mask: (1 or B, 1 or C, H, W) in [0, 1].
        box: top, left, height, width in pixels.
        scale: s.
        base: the guidance whose estimate is used and changed.
        interval: noise levels (low, high] that are guided by the picture; elsewhere only `base`.
    """

    examples: ClassVar[tuple[Example, ...]] = (
        Example({"target": torch.zeros(1, 3, 8, 8)}),
        Example({"target": torch.ones(1, 1, 8, 8), "transform": "grey", "scale": 0.3, "base": CFG(scale=2.0)}),
        Example({"target": torch.zeros(1, 3, 4, 4), "transform": "downsample"}),
        Example({"target": torch.zeros(1, 3, 2, 4), "transform": "crop", "box": (1, 0, 2, 4)}),
    )
    model_config = ConfigDict(arbitrary_types_allowed=True)

    target: SkipJsonSchema[Tensor] = Field(exclude=True, repr=False)
    transform: Transform | SkipJsonSchema[Callable[[Tensor], Tensor]] = "identity"
    factor: int = Field(default=2, ge=1)
    mask: SkipJsonSchema[Tensor | None] = Field(default=None, exclude=True, repr=False)
    box: tuple[int, int, int, int] | None = None
    scale: SignedScale = 1.0
    base: Nested = NoGuidance()
    interval: Interval = None

    @model_validator(mode="after")
    def _complete(self) -> Self:
        for name, needed in (("mask", self.mask), ("crop", self.box)):
            if self.transform == name and needed is None:
                field = "box" if name == "crop" else "mask"
                raise SpecError("transform", f"transform {name!r} needs `{field}`", where=f"guidance.{field}")
        return self

    def __call__(self, evaluate: Evaluate, x: Tensor, sigma: float) -> Tensor:
        """Raises InputError: the target's shape is not the one that the transform returns."""
        if outside(self.interval, sigma):
            return self.base(evaluate, x, sigma)
        kept: list[Tensor] = []

        def log_prob(free: Tensor) -> Tensor:
            x0 = self.base(evaluate, free, sigma)
            kept.append(x0.detach())
            return self._log_prob(evaluate.decode(x0))

        slope = gradient(log_prob, x)
        return torch.add(kept[0], slope, alpha=self.scale * sigma * sigma)

    @property
    def differentiates(self) -> bool:
        return True

    def plain(self, scale: float) -> None:
        return None

    def views(self, names: Sequence[str]) -> int:
        return self.base.views(names)

    def weights(self, names: Sequence[str], sigma: float) -> Mapping[View, float] | None:
        return self.base.weights(names, sigma)

    def _log_prob(self, images: Tensor) -> Tensor:
        if images.ndim != 4:
            what = f"the pipeline decodes to data of shape {tuple(images.shape)}"
            raise InputError("guidance-rank", what, where="guidance", fits="a model that draws pictures (B, 3, H, W)")
        seen, wanted = self._transformed(images), self._transformed_target(images)
        if seen.shape[1:] != wanted.shape[1:] or wanted.shape[0] not in (1, seen.shape[0]):
            what = f"the target is {tuple(wanted.shape)}, the transformed picture {tuple(seen.shape)}"
            raise InputError("guidance-target", what, where="guidance.target", fits=f"{tuple(seen.shape)}")
        return (wanted - seen).square().flatten(1).sum(1) * -0.5

    def _transformed_target(self, like: Tensor) -> Tensor:
        wanted = self.target.to(like)
        return wanted * self.mask.to(like) if self.transform == "mask" and self.mask is not None else wanted

    def _transformed(self, images: Tensor) -> Tensor:
        if not isinstance(self.transform, str):
            return self.transform(images)
        if self.transform == "downsample":
            size = [n // self.factor for n in images.shape[-2:]]
            return F.interpolate(images, size=size, mode="bicubic", antialias=True)
        if self.transform == "mask" and self.mask is not None:
            return images * self.mask.to(images)
        if self.transform == "grey":
            return (images * images.new_tensor(GREY).view(1, 3, 1, 1)).sum(1, keepdim=True)
        if self.transform == "crop" and self.box is not None:
            top, left, height, width = self.box
            return images[..., top : top + height, left : left + width]
        return images
