"""Maps of real values (depth, heat, flow, normals) as planes beside the latent."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

import torch
import torch.nn.functional as F
from pydantic import Field, model_validator
from torch import Tensor

from ldmkit import (
    Codec,
    CompositionError,
    Example,
    Plane,
    SetsSize,
    SignalKind,
    UsesCodec,
    Value,
    ValueMap,
    check_pictures,
)
from ldmkit.bounds import Width
from ldmkit.run.sizes import pad
from ldmkit_conditioners.image import PictureInput, one_size


class ValuePlaneConfig(Value):
    """What a map is, see `ldmkit.ValueMap`.

    Args:
        channels: values a pixel has.
        low, high: range of the values; what lies outside is refused.
        integers: meaning of integers in files: shares of the range (`scaled`), or the `values` themselves.
        mirror: factor of each channel when the picture is mirrored, -1 for components along x; null: 1 for a single
            channel that cannot be negative, otherwise unknown, and then training must not mirror.
    """

    channels: Width = 1
    low: float = 0.0
    high: float = 1.0
    integers: Literal["scaled", "values"] = "scaled"
    mirror: tuple[Annotated[int, Field(ge=-1, le=1)], ...] | None = None

    @model_validator(mode="after")
    def _declares_a_map(self) -> ValuePlaneConfig:
        self.field()
        return self

    def field(self) -> ValueMap:
        """The config as the declaration of an input."""
        return ValueMap(self.channels, self.low, self.high, self.integers, self.mirror)


class ValuePlane(PictureInput, UsesCodec, SetsSize):
    """A map of the picture's size -> a plane (B, channels + 1, h, w): its values in [-1, 1], each cell of the latents
    the mean over its pixels, and a channel of ones. The null is zeros, which differs from every map.

    Maps of other sizes are padded by their edges, as pictures are.
    """

    Config: ClassVar[type[ValuePlaneConfig]] = ValuePlaneConfig
    Input: ClassVar[Any] = Annotated[Tensor, ValueMap()]
    examples: ClassVar[tuple[Example, ...]] = (
        Example({}, ([[0, 0.25, 1, 0.5]] * 4, [[1, 1, 0, 0]] * 4), trained=False),
        Example(
            {"channels": 2, "low": -3, "high": 3, "mirror": (-1, 1)},
            ([[[-3, 3], [0, 1.5]]] * 2, [[[0, 0], [1, 1]]] * 2),
            trained=False,
        ),
    )
    kind: SignalKind = "plane"

    def __init__(self, config: Any = None):
        super().__init__(config)
        field = self.config.field()
        vars(self)["Input"] = Annotated[Tensor, field]  # of this instance: the config says what is read
        self.dim = field.channels + 1
        self._grid: tuple[int, int] | None = None

    def bind(self, codec: Codec) -> None:
        check_pictures(codec.axes, "a value-map conditioner")
        grid = (codec.factor, codec.multiple)
        if self._grid is not None and self._grid != grid:
            what = f"this value-map conditioner makes planes for another pipeline's codec, of factor {self._grid[0]}"
            raise CompositionError("bound-elsewhere", what, fits="one of its own for every codec")
        self._grid = grid

    def picture_size(self, value: Tensor, factor: int) -> tuple[int, int]:
        height, width = value.shape[-2:]
        return height, width

    def example(self, size: tuple[int, int]) -> Tensor:
        return torch.full((self.config.channels, *size), (self.config.low + self.config.high) / 2)

    def forward(self, inputs: list[Tensor]) -> Plane:
        factor, multiple = self._grid or (1, 1)
        config = self.config
        maps = pad(one_size(inputs, "value-map"), multiple).to(self.device, self.dtype)
        middle, half = (config.low + config.high) / 2, (config.high - config.low) / 2
        cells = F.avg_pool2d((maps - middle) / half, factor)
        return Plane(torch.cat([cells, torch.ones_like(cells[:, :1])], dim=1))
