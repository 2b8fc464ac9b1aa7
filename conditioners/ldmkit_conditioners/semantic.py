"""Semantic maps: one-hot classes through the paper's rescaler, to a plane beside the latent."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

import torch
import torch.nn.functional as F
from pydantic import Field, model_validator
from torch import Tensor, nn

from ldmkit import (
    Codec,
    CompositionError,
    Example,
    InputError,
    LabelMap,
    Plane,
    SetsSize,
    SignalKind,
    UsesCodec,
    Value,
    check_pictures,
)
from ldmkit.bounds import MAX_LEVELS, Width
from ldmkit.run.sizes import pad
from ldmkit_conditioners.image import PictureInput, one_size


class SemanticConfig(Value):
    """The defaults are semantic_synthesis256's.

    Args:
        dim: channels after the 1x1 convolution; None: no convolution, the classes themselves.
        stages: number of times that the map is resized by `multiplier`.
        method: resizing method; bilinear and bicubic without anti-aliasing and with unaligned corners.
        zero_null: zeros stand for "no map"; False for models that were never trained without one.
        ignore: a label that belongs to no class (all-zero one-hot), e.g. 255 for "unknown".
        names: names of the classes, in order, as information for users; empty, or one for each.
    """

    n_classes: Width = 182
    dim: Width | None = 3
    stages: int = Field(default=2, ge=0, le=MAX_LEVELS)
    multiplier: float = Field(default=0.5, gt=0, le=2)
    method: Literal["nearest", "bilinear", "bicubic", "area"] = "bilinear"
    bias: bool = False
    ignore: int | None = Field(default=None, ge=0)
    zero_null: bool = True
    names: tuple[str, ...] = ()

    @model_validator(mode="after")
    def _one_name_each(self) -> SemanticConfig:
        if self.names and len(self.names) != self.n_classes:
            raise ValueError(f"{len(self.names)} names for {self.n_classes} classes")
        return self

    @model_validator(mode="after")
    def _ignore_is_no_class(self) -> SemanticConfig:
        if self.ignore is not None and self.ignore < self.n_classes:
            raise ValueError(f"ignore {self.ignore} is a class: there are {self.n_classes}")
        return self


class Semantic(PictureInput, UsesCodec, SetsSize):
    """A label map (H, W) as a plane (B, dim, H * multiplier^stages, ...). The null is zeros.

    A map whose sides do not divide is padded by its edges: the plane has the size of the latents of a picture whose
    size is the map's times `multiplier^stages`, times the codec's factor.
    """

    Config: ClassVar[type[SemanticConfig]] = SemanticConfig
    Input: ClassVar[Any] = LabelMap
    examples: ClassVar[tuple[Example, ...]] = (
        Example({"n_classes": 4, "ignore": 255}, ([[0, 1, 2, 3]] * 8, [[255, 0, 0, 1]] * 8)),
        Example({"n_classes": 2, "dim": None, "stages": 1, "zero_null": False, "method": "nearest"}),
    )
    kind: SignalKind = "plane"

    def __init__(self, config: Any = None):
        super().__init__(config)
        c = self.config
        self.dim = c.n_classes if c.dim is None else c.dim
        self.channel_mapper = None if c.dim is None else nn.Conv2d(c.n_classes, c.dim, 1, bias=c.bias)

        self.has_null = c.zero_null
        self._grid: tuple[int, int] | None = None

    def bind(self, codec: Codec) -> None:
        check_pictures(codec.axes, "a semantic conditioner")
        grid = (codec.factor, codec.multiple // codec.factor)
        if self._grid is not None and self._grid != grid:
            what = f"this semantic conditioner pads its maps for another pipeline's codec, of factor {self._grid[0]}"
            raise CompositionError("bound-elsewhere", what, fits="one of its own for every codec")
        self._grid = grid

    def parse(self, raw: Any, where: str) -> Tensor:
        labels: Tensor = super().parse(raw, where)
        self._check(labels, where)
        return labels

    def example(self, size: tuple[int, int]) -> Tensor:
        factor, cells = self._grid or (1, 1)
        wanted = [-(-side // (factor * cells)) * cells for side in size]
        return torch.zeros([self._labels(side) for side in wanted], dtype=torch.long)

    def picture_size(self, value: Tensor, factor: int) -> tuple[int, int]:
        height, width = value.shape
        unit = self._unit
        if unit is None:
            return self._shrunk(height) * factor, self._shrunk(width) * factor
        return -(-height * factor // unit), -(-width * factor // unit)

    def forward(self, inputs: list[Tensor]) -> Plane:
        for labels in inputs:
            self._check(labels, "semantic")
        maps = one_size(inputs, "semantic").to(self.device)
        if self._unit is not None:
            cells = self._grid[1] if self._grid else 1
            maps = pad(maps[:, None].float(), self._unit * cells)[:, 0].long()
        return Plane(self.rescale(self.one_hot(maps)))

    @property
    def _unit(self) -> int | None:
        """Number of labels along a side that make one cell of the plane; None if it is not an integer."""
        inverse = (1 / self.config.multiplier) ** self.config.stages
        return round(inverse) if inverse >= 1 and abs(inverse - round(inverse)) < 1e-9 else None

    def _shrunk(self, side: int) -> int:
        """Number of cells that this many labels become without padding."""
        for _ in range(self.config.stages):
            side = int(side * self.config.multiplier)
        return side

    def _labels(self, cells: int) -> int:
        """The smallest number of labels along a side that becomes this many cells."""
        labels = max(1, int(cells / self.config.multiplier**self.config.stages))
        while self._shrunk(labels) < cells:
            labels += 1
        return labels

    def one_hot(self, labels: Tensor) -> Tensor:
        """(B, H, W) int64 -> (B, n_classes, H, W) of 0 and 1, all 0 where the label is `ignore`."""
        known = (
            labels if self.config.ignore is None else labels.where(labels != self.config.ignore, self.config.n_classes)
        )
        hot = torch.zeros(
            len(labels), self.config.n_classes + 1, *labels.shape[1:], device=labels.device, dtype=self.dtype
        )
        return hot.scatter_(1, known[:, None], 1.0)[:, : self.config.n_classes]

    def rescale(self, x: Tensor) -> Tensor:
        """The rescaler alone: (B, n_classes, H, W) -> (B, dim, h, w)."""
        config = self.config
        for _ in range(config.stages):
            x = F.interpolate(x, scale_factor=config.multiplier, mode=config.method)
        return x if self.channel_mapper is None else self.channel_mapper(x)

    def _check(self, labels: Tensor, where: str) -> None:
        wrong = labels[labels >= self.config.n_classes]
        if self.config.ignore is not None:
            wrong = wrong[wrong != self.config.ignore]
        if len(wrong):
            what = f"label {int(wrong[0])} in the map ({len(wrong)} pixels are out of range)"
            extra = "" if self.config.ignore is None else f", or {self.config.ignore} for none"
            raise InputError("label-range", what, where=where, fits=f"0 to {self.config.n_classes - 1}{extra}")
