"""Any denoiser, patch by patch with overlap weights: sampling far beyond the training size (Rombach et al. 2022)."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from functools import lru_cache
from typing import Any, NamedTuple, Self

import torch
from pydantic import Field, model_validator
from torch import Tensor

from ldmkit import (
    CompositionError,
    Context,
    Denoiser,
    Example,
    PartSpec,
    Plane,
    Signal,
    SpecError,
    Value,
    Work,
    part_spec,
)
from ldmkit_denoisers.config import SMALL
from ldmkit_denoisers.wrapped import WrappedContext, inner_context, inner_denoiser, outer_fields

UNET = {
    "type": "unet",
    "config": {**SMALL, "in_channels": 5, "attention": ("none", "cross"), "context_dim": 6},
}
"""A denoiser for examples."""


class PatchedConfig(Value):
    """How latents are divided into patches. Lengths are in latent pixels, (height, width) or one number for both.

    Args:
        inner: the denoiser, `{type, config}`.
        kernel: size of a patch; a smaller map is a single patch.
        stride: distance of neighbouring patches, at most the kernel; the last patch ends at the border.
        clip_min, clip_max: bounds of a pixel's weight, which is its distance to the patch's border, 1/2 in the centre.
        tie_breaker: also weight patches, by their distance to the border of the grid of patches.
        tie_min, tie_max: bounds of that weight.
    """

    inner: PartSpec
    kernel: int | tuple[int, int] = 128
    stride: int | tuple[int, int] = 64
    clip_min: float = Field(0.01, gt=0)
    clip_max: float = Field(0.5, gt=0)
    tie_breaker: bool = False
    tie_min: float = Field(0.01, gt=0)
    tie_max: float = Field(0.5, gt=0)

    @model_validator(mode="after")
    def _check(self) -> Self:
        for kernel, stride in zip(_pair(self.kernel), _pair(self.stride), strict=True):
            if not 0 < stride <= kernel:
                raise SpecError("stride", f"stride {stride} leaves gaps between patches of {kernel}", where="stride")
        return self


class Patches(NamedTuple):
    """Patches of a map: top-left corners, size, weights (N, kh, kw), and the weights summed at each pixel (H, W)."""

    corners: tuple[tuple[int, int], ...]
    size: tuple[int, int]
    weights: Tensor
    total: Tensor


class PatchedContext(WrappedContext):
    """The inner denoiser's context; adapters put their states here."""


class PatchedDenoiser(Denoiser):
    """F of the inner denoiser on overlapping patches, averaged with weights that fall towards each patch's border.

    Slots and ports are the inner denoiser's. Planes, and the states of adapters that can be cropped, are cut with the
    patch. State-dict names: those of the inner denoiser under `inner.`. One patch is exactly the inner denoiser.
    """

    Config = PatchedConfig
    config: PatchedConfig
    examples = (Example({"inner": UNET, "kernel": (8, 7), "stride": (8, 5), "tie_breaker": True}),)

    def __init__(self, config: PatchedConfig | None = None, inner: Denoiser | None = None):
        super().__init__(config)
        self.inner = inner_denoiser(self.config.inner, "patches", inner)
        self.channels, self.slots, self.ports = self.inner.channels, self.inner.slots, self.inner.ports
        self.smallest = self.inner.smallest
        # the inner network is compiled once for all patches; a graph of this one would contain it once per patch
        self.regions = self.inner.regions or (type(self.inner),)
        if min(_pair(self.config.kernel)) < self.smallest:
            what = f"patches of {self.config.kernel} are too small for the network"
            raise CompositionError("kernel-small", what, where="kernel", fits=f"{self.smallest} or more")

    @classmethod
    def wrap(cls, denoiser: Denoiser, **settings: Any) -> PatchedDenoiser:
        """The denoiser itself (not a copy) in patches; `settings` as in `PatchedConfig`."""
        settings = {"inner": part_spec("denoiser", denoiser), **settings}
        return cls(PatchedConfig.of(settings, "PatchedDenoiser config"), denoiser)

    def footprint(self, rows: int, size: tuple[int, ...]) -> Work:
        """Memory of the inner denoiser for one patch, and its operations for all patches."""
        patch = (min(size[0], _pair(self.config.kernel)[0]), min(size[1], _pair(self.config.kernel)[1]))
        count = math.prod(len(_starts(*side)) for side in zip(size, patch, _pair(self.config.stride), strict=True))
        one = self.inner.footprint(rows, patch)
        return Work(one.bytes, one.flops * count)

    def prepare(self, signals: Mapping[str, Signal]) -> PatchedContext:
        """The inner denoiser's `prepare`."""
        return PatchedContext(signals, inner=self.inner.prepare(signals))

    def adapted(self, context: Context) -> Context:
        """The inner denoiser's `adapted`, with adapter states of all the latents."""
        if isinstance(context, PatchedContext) and context.inner is not None:
            context.inner = self.inner.adapted(_window(context, None))
        return context

    def forward(self, x: Tensor, t: Tensor, context: Context, sigma: float | None = None) -> Tensor:
        """F on every patch, one after the other, and their weighted mean.

        Raises:
            CompositionError: the context is another network's, or an adapter's state cannot be cut.
        """
        if not isinstance(context, PatchedContext) or context.inner is None:
            raise CompositionError("foreign-context", "the context was not prepared by this denoiser")
        size = (int(x.shape[2]), int(x.shape[3]))
        patches = patches_of(self.config, size, x.device)
        if len(patches.corners) == 1:
            return self.inner(x, t, _window(context, None), sigma)  # type: ignore[no-any-return]
        height, width = patches.size
        mean: Tensor | None = None
        for (top, left), weight in zip(patches.corners, patches.weights, strict=True):
            window = (..., slice(top, top + height), slice(left, left + width))
            part = self.inner(x[window], t, _window(context, (top, left, height, width)), sigma)
            if mean is None:
                mean = torch.zeros(*part.shape[:2], *size, dtype=_wide(part.dtype), device=x.device)
            mean[window] += part * weight.to(mean.dtype)
        assert mean is not None
        return (mean / patches.total.to(mean.dtype)).to(part.dtype)


def patches_of(config: PatchedConfig, size: tuple[int, int], device: torch.device) -> Patches:
    """Positions and weights of the patches of a map (H, W); float32."""
    tie = (config.tie_min, config.tie_max) if config.tie_breaker else None
    return _patches(_pair(config.kernel), _pair(config.stride), (config.clip_min, config.clip_max), tie, size, device)


@lru_cache(maxsize=16)
@torch.inference_mode(False)
def _patches(
    kernel: tuple[int, int],
    stride: tuple[int, int],
    clip: tuple[float, float],
    tie: tuple[float, float] | None,
    size: tuple[int, int],
    device: torch.device,
) -> Patches:
    kernel = (min(kernel[0], size[0]), min(kernel[1], size[1]))
    rows, columns = (_starts(s, k, d) for s, k, d in zip(size, kernel, stride, strict=True))
    weights = border_distance(*kernel, device).clamp(*clip).expand(len(rows) * len(columns), *kernel)
    if tie is not None:
        patch = border_distance(len(rows), len(columns), device).clamp(*tie)
        weights = weights * patch.reshape(-1, 1, 1)
    corners = tuple((top, left) for top in rows for left in columns)
    total = torch.zeros(size, device=device)
    for (top, left), weight in zip(corners, weights, strict=True):
        total[top : top + kernel[0], left : left + kernel[1]] += weight
    return Patches(corners, kernel, weights, total)


def border_distance(height: int, width: int, device: torch.device | None = None) -> Tensor:
    """Distance of every cell of a grid (height, width) to its nearest border, in units of its sides: 0 to 1/2."""
    rows = torch.arange(height, dtype=torch.float32, device=device)[:, None] / max(height - 1, 1)
    columns = torch.arange(width, dtype=torch.float32, device=device)[None, :] / max(width - 1, 1)
    return torch.minimum(torch.minimum(rows, 1 - rows), torch.minimum(columns, 1 - columns))


def _pair(value: int | tuple[int, int]) -> tuple[int, int]:
    return value if isinstance(value, tuple) else (value, value)


def _wide(dtype: torch.dtype) -> torch.dtype:
    return torch.float32 if dtype in (torch.float16, torch.bfloat16) else dtype


def _starts(size: int, kernel: int, stride: int) -> list[int]:
    starts = list(range(0, size - kernel + 1, stride))
    return starts if starts[-1] + kernel == size else [*starts, size - kernel]


def _window(context: PatchedContext, window: tuple[int, int, int, int] | None) -> Context:
    """The inner context for a window (top, left, height, width) of the latents; None: for all of them."""
    assert context.inner is not None
    if window is None:
        return replace(inner_context(context), signals=context.signals)
    changes = outer_fields(context)
    cut: dict[str, Any] = {}
    for name, state in context.adapters.items():
        if state is not None and not hasattr(state, "crop"):
            raise CompositionError(
                "not-croppable", f"adapter {name!r} cannot be used on patches", fits="a crop() method"
            )
        cut[name] = None if state is None else state.crop(*window)
    top, left, height, width = window
    area = (..., slice(top, top + height), slice(left, left + width))
    plane = context.signals.get("plane")
    signals = dict(context.signals)
    if isinstance(plane, Plane):
        signals["plane"] = Plane(plane.value[area])
    inner = context.inner
    if getattr(inner, "plane", None) is not None:
        changes["plane"] = inner.plane[area]  # type: ignore[attr-defined]
    return replace(inner, signals=signals, **{**changes, "adapters": cut})
