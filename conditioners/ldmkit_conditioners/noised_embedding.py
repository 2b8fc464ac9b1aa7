"""A picture's embedding with noise, and the level of that noise: the condition of Stable unCLIP."""

from __future__ import annotations

from typing import Any, ClassVar, Self

import torch
from pydantic import Field, model_validator
from torch import Tensor

from ldmkit import (
    Example,
    InputError,
    PartSpec,
    Process,
    Seeded,
    Signal,
    Vector,
    WeightsError,
    build_value,
    seeded,
)
from ldmkit_conditioners.picture_embedding import (
    PICTURES,
    Embedded,
    EmbeddedConfig,
    EmbeddedPicture,
    small_encoder,
)
from ldmkit_conditioners.size_codes import sinusoids


class NoisedEmbedded(Embedded):
    """A picture or its embedding, and the noise to add.

    Args:
        level: amount of noise, a step of the process's table from 0; None: the model's default.
        seed: seed of the noise; None: derived from the seed of the drawn picture.
    """

    level: int | None = Field(default=None, ge=0)
    seed: int | None = Field(default=None, ge=0, lt=2**64)


class NoisedEmbeddingConfig(EmbeddedConfig):
    """
    Args:
        process: whose noise it is; it has a table of steps.
        level: of runs whose input names none, a step of that table.
        levels: training draws from this range, uniformly, both ends included; None: the whole table.
    """

    process: PartSpec = PartSpec(type="discrete", config={"schedule": "cosine"})
    level: int = Field(default=0, ge=0)
    levels: tuple[int, int] | None = None

    @model_validator(mode="after")
    def _even(self) -> Self:
        if self.dim % 2:
            raise ValueError(f"dim {self.dim} is odd: the code of the level has pairs of numbers")
        return self


class NoisedEmbedding(EmbeddedPicture, Seeded):
    """The noised embedding and the sinusoids of its noise level, (B, 2 dim), cosines first.

    e' = std * alpha_k ((e - mean) / std + sigma_k n) + mean, n from the row's seed and the purpose "augment". `mean`
    and `std` are tensors of the model. The null is zeros of all 2 dim numbers.
    """

    Config: ClassVar[type[NoisedEmbeddingConfig]] = NoisedEmbeddingConfig
    examples: ClassVar[tuple[Example, ...]] = (
        Example({"dim": 4}, ([1, 2, 3, 4], {"embedding": [4, 5, 6.5, 7], "level": 999}, [7, 8, 9, 0]), trained=False),
        Example(
            {
                "dim": 6,
                "encoder": small_encoder(6),
                "level": 2,
                "process": {"type": "discrete", "config": {"steps": 9}},
            },
            ({"image": PICTURES[0], "level": 8}, PICTURES[1], PICTURES[2]),
            trained=False,
        ),
    )
    Input: ClassVar[Any] = NoisedEmbedded
    mean: Tensor
    std: Tensor

    def __init__(self, config: Any = None):
        super().__init__(config)
        self.dim = 2 * self.config.dim
        self.process: Process = build_value("process", self.config.process)
        steps = self.process.timesteps
        low, high = self.config.levels or (0, (steps or 1) - 1)
        if steps is None or not 0 <= low <= high < steps or self.config.level >= steps:
            what = f"levels {low} to {high} and the level {self.config.level} of a table of {steps} steps"
            raise InputError("level-range", what, where="levels", fits=f"steps of the table, 0 to {(steps or 1) - 1}")
        self.steps = steps
        self.register_buffer("mean", torch.zeros(self.config.dim))
        self.register_buffer("std", torch.ones(self.config.dim))

    def parse(self, raw: Any, where: str) -> Any:
        value = super().parse(raw, where)
        if value.level is not None and value.level >= self.steps:
            what = f"level {value.level} of a table of {self.steps} steps"
            raise InputError("level-range", what, where=f"{where}.level", fits=f"0 to {self.steps - 1}")
        return value

    def drawn(self, value: NoisedEmbedded, seed: int, *, training: bool) -> NoisedEmbedded:
        """Set level and seed: in training the level is uniform, otherwise that of the config."""
        level = self.config.level if value.level is None else value.level
        if value.level is None and training:
            low, high = self.config.levels or (0, self.steps - 1)
            level = int(torch.randint(low, high + 1, (), generator=seeded(seed, "augment-level")))
        return value.model_copy(update={"level": level, "seed": seed if value.seed is None else value.seed})

    def forward(self, inputs: list[NoisedEmbedded]) -> Vector:
        """Errors as for `drawn`; `no-statistics` where `std` is not positive."""
        found, levels = self.embeddings(inputs), [self._level(value) for value in inputs]
        if not found.is_meta and not bool(
            (self.std > 0).all() & self.std.isfinite().all() & self.mean.isfinite().all()
        ):
            what = "some deviation of the embeddings is not a number above 0, or some mean is not a number"
            fits = "a file with the mean and deviation of the embeddings"
            raise WeightsError("no-statistics", what, where="image_normalizer", fits=fits)
        found = found.to(torch.promote_types(found.dtype, torch.float32))
        mean, std = self.mean.to(found), self.std.to(found)
        rows = [self._noised(*row) for row in zip((found - mean) / std, inputs, levels, strict=True)]
        codes = sinusoids(torch.tensor(levels, device=found.device), self.config.dim)
        return Vector(torch.cat([torch.stack(rows) * std + mean, codes.to(found)], dim=1).to(self.dtype))

    def null(self, like: Signal) -> Vector:
        """Zeros."""
        assert isinstance(like, Vector)
        return Vector(torch.zeros_like(like.value))

    def _level(self, value: NoisedEmbedded) -> int:
        return self.config.level if value.level is None else value.level

    def _noised(self, row: Tensor, value: NoisedEmbedded, level: int) -> Tensor:
        sigma = self.process.sigma((level + 0.5) / self.steps)  # in the middle of the step's share of the table
        noise = torch.randn(row.shape, generator=seeded(value.seed or 0, "augment", 0), dtype=torch.float32)
        return self.process.alpha(sigma) * (row + sigma * noise.to(row))
