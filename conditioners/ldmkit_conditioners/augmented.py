"""A small noisy picture, the condition of a cascade's second stage (Ho et al. 2021, arXiv:2106.15282)."""

from __future__ import annotations

from typing import Any, ClassVar, Literal, Self

import numpy as np
import torch
from pydantic import Field, model_validator
from torch import Tensor

from ldmkit import (
    Example,
    InputError,
    PartSpec,
    Picture,
    Plane,
    Process,
    Seeded,
    SetsSize,
    SignalKind,
    Value,
    Vector,
    build_value,
    seeded,
)
from ldmkit_conditioners.image import EnlargingConfig, PictureInput, one_size


class Augmented(Value):
    """A picture, or `{"image": picture}` with more.

    Args:
        image: the small picture.
        level: amount of noise, from 0 (the process's lowest level) to 1; None: the model's default.
        seed: seed of the noise; None: derived from the seed of the drawn picture.
    """

    image: Picture
    level: float | None = Field(default=None, ge=0, le=1)
    seed: int | None = Field(default=None, ge=0, lt=2**64)

    @model_validator(mode="before")
    @classmethod
    def _picture(cls, given: Any) -> Any:
        return given if isinstance(given, (dict, cls)) else {"image": given}


class AugmentationConfig(Value):
    """
    Args:
        process: whose noise it is; a level is a quantile of its training distribution (of a table, a share of it).
        level: of runs whose input names none.
        levels: training draws from this range, uniformly.
        most: highest level that the network knows; higher ones are refused.
    """

    process: PartSpec = PartSpec(type="discrete", config={"schedule": "cosine"})
    level: float = Field(default=0.1, ge=0, le=1)
    levels: tuple[float, float] = (0.0, 1.0)
    most: float = Field(default=1.0, ge=0, le=1)

    @model_validator(mode="after")
    def _range(self) -> Self:
        low, high = self.levels
        if self.level > self.most:
            raise InputError("level-range", f"level {self.level} is above {self.most}, the highest of this model")
        if not 0 <= low <= high <= 1:
            raise InputError("level-range", f"levels from {low} to {high}", fits="0 <= low <= high <= 1")
        return self


class _Augmenting(PictureInput, Seeded):
    """Base class of conditioners that read an `Augmented`: sets its level and seed unless the caller did."""

    Config: ClassVar[type[AugmentationConfig]] = AugmentationConfig
    Input: ClassVar[Any] = Augmented
    has_null = False

    def __init__(self, config: Any = None):
        super().__init__(config)
        self.process: Process = build_value("process", self.config.process)

    def drawn(self, value: Augmented, seed: int, *, training: bool) -> Augmented:
        """Set level and seed: in training the level is uniform, otherwise that of the config.

        Raises:
            InputError: `level-range`: a level above the config's `most`.
        """
        level = value.level
        if level is not None and level > self.config.most:
            what, fits = f"the noise level is {level}", f"0 to {self.config.most}, which this model knows"
            raise InputError("level-range", what, where="level", fits=fits)
        if level is None and training:
            low, high = self.config.levels
            level = low + (high - low) * float(torch.rand((), generator=seeded(seed, "augment-level")))
        changed = {"level": self._level(level), "seed": seed if value.seed is None else value.seed}
        return value.model_copy(update=changed)

    def sigma(self, value: Augmented) -> float:
        """The noise level of an input."""
        return self.process.sigma(self._level(value.level))

    def _level(self, level: float | None) -> float:
        return self.config.level if level is None else level


class NoisedConfig(EnlargingConfig, AugmentationConfig):
    """
    Args:
        enlarge, method, align_corners: as of `image`, with other defaults.
    """

    enlarge: int = Field(default=2, ge=1, le=16)
    method: Literal["bilinear", "bicubic", "nearest"] = "bicubic"


class NoisedPicture(_Augmenting, SetsSize):
    """The picture enlarged to the latents' size, with noise, on the process's own scale: (B, 3, h, w).

    Noise is added to the enlarged picture: alpha (x + sigma n), n from the row's seed and the purpose "augment".
    """

    Config: ClassVar[type[NoisedConfig]] = NoisedConfig
    config: NoisedConfig
    examples: ClassVar[tuple[Example, ...]] = (
        Example(),
        Example({"enlarge": 4, "method": "bilinear", "align_corners": True, "level": 0.5}),
        Example({"enlarge": 1, "method": "nearest", "process": {"type": "flow", "config": {}}, "levels": [0.2, 0.4]}),
    )
    kind: SignalKind = "plane"
    dim = 3

    def picture_size(self, value: Augmented, factor: int) -> tuple[int, int]:
        """The enlarged picture's, times the codec's factor."""
        height, width = value.image.shape[-2:]
        return height * self.config.enlarge * factor, width * self.config.enlarge * factor

    def forward(self, inputs: list[Augmented]) -> Plane:
        """Enlarge the pictures, and add noise if a level was drawn."""
        images = self.config.enlarged(one_size([value.image for value in inputs], "image"))
        return Plane(torch.stack([self._noised(x, value) for x, value in zip(images, inputs, strict=True)]))

    def _noised(self, image: Tensor, value: Augmented) -> Tensor:
        sigma, made = self.sigma(value), {"dtype": torch.float32, "device": "cpu"}
        noise = torch.randn(tuple(image.shape), generator=seeded(value.seed or 0, "augment", 0), **made)
        return self.process.alpha(sigma) * (image + sigma * noise.to(image.device))


_GREY = np.full((4, 4, 3), 128, np.uint8)
_LEVELS = tuple({"image": _GREY, "level": level} for level in (0.2, 0.5, 0.9))


class NoiseLevel(_Augmenting):
    """The level of that noise as the process's time, (B, 1), as a U-Net with `vector: timestep` reads it.

    Wire it to the same input as a `noised-picture`, and give it the same `process`.
    """

    examples: ClassVar[tuple[Example, ...]] = (
        Example({}, _LEVELS),
        Example({"process": {"type": "flow", "config": {}}, "level": 0.4, "levels": [0.2, 0.4]}, _LEVELS),
    )
    kind: SignalKind = "vector"
    dim = 1

    def forward(self, inputs: list[Augmented]) -> Vector:
        """One number a row."""
        return Vector(torch.tensor([[self.process.time(self.sigma(value))] for value in inputs], dtype=torch.float32))
