"""A correct training stage that knows no in-tree part: a constant picture, and one number that scales it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import ClassVar, Self

import torch
from torch import Tensor, nn

from ldmkit import Batch, Example, Loss, Stage, StageSetup, Turn, Value


class MeanConfig(Value):
    """
    Args:
        noise: added to the pictures in training.
    """

    noise: float = 0.1


class MeanTurn(Turn):
    """The squared error of one colour (3,), beside pictures with noise, and how far it is from grey."""

    def __init__(self, config: MeanConfig) -> None:
        super().__init__()
        self.noise = config.noise
        self.colour = nn.Module()
        self.colour.value = nn.Parameter(torch.full((3,), 0.5))

    def forward(self, batch: Batch, step: int) -> Loss:
        images = batch.images + self.noise * batch.draws.normal("noise", batch.images.shape[1:])
        error, grey = self.errors(images).mean(), self.colour.value.square().mean()
        return Loss(error + grey, {"error": error.detach()}, {"error": error, "grey": grey})

    def errors(self, images: Tensor) -> Tensor:
        """(B,)"""
        return (images - self.colour.value[:, None, None]).square().mean((1, 2, 3))

    def groups(self) -> Mapping[str, list[nn.Parameter]]:
        return {"colour": [self.colour.value]}

    def reaches(self) -> Mapping[str, frozenset[str]]:
        return dict.fromkeys(("error", "grey"), frozenset({"colour"}))


class Mean(Stage):
    """Trains the mean colour of pictures; a frozen scale stands by."""

    api: ClassVar[int] = 1
    Config = MeanConfig
    turn_class: ClassVar[type[MeanTurn]] = MeanTurn
    examples: ClassVar[tuple[Example, ...]] = (Example({"noise": 0.2}), Example(inputs=({"label": 1},)))

    def __init__(self, config: MeanConfig) -> None:
        self.scale = nn.Linear(1, 1).requires_grad_(False)
        self.turn = self.turn_class(config)
        self.turns: Mapping[str, Turn] = {"mean": self.turn}

    @classmethod
    def build(cls, config: MeanConfig, setup: StageSetup) -> Self:
        return cls(config)

    @property
    def averaged(self) -> nn.Module:
        return self.turn.colour

    @property
    def frozen(self) -> Mapping[str, nn.Module]:
        return {"scale": self.scale}

    def save(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        torch.save(self.averaged.state_dict(), folder / "colour.pt")

    @torch.no_grad()
    def validate(self, batches: Iterable[Batch]) -> Mapping[str, float]:
        found = [self.turn.errors(batch.images) for batch in batches]
        return {"error": float(torch.cat(found).mean())} if found else {}
