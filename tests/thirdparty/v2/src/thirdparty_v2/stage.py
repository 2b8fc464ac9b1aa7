"""A training stage: what `ldmkit train` trains, and what it saves."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import ClassVar

import torch
from pydantic import Field
from safetensors.torch import save_file
from torch import Tensor, nn

from ldmkit import Batch, Example, InputError, Loss, Stage, StageSetup, Turn, Value


class ColoursConfig(Value):
    """
    Args:
        width: of the hidden layer.
        positions: that each picture is looked at in a step.
    """

    width: int = Field(default=64, ge=1, le=65536)
    positions: int = Field(default=256, ge=1, le=2**20)


class ColoursTurn(Turn):
    """The squared error of the colours (B,3) that a network of two layers predicts from positions (B,2) in [-1,1].

    Args:
        config: of the stage.
    """

    def __init__(self, config: ColoursConfig) -> None:
        super().__init__()
        self.positions = config.positions
        self.network = nn.Sequential(nn.Linear(2, config.width), nn.SiLU(), nn.Linear(config.width, 3))

    def forward(self, batch: Batch, step: int) -> Loss:
        drawn = batch.draws.normal("positions", (self.positions, 2)).clamp(-1, 1)
        error = self.errors(batch, drawn).mean()
        return Loss(error, {"error": error.detach()}, {"error": error})

    def errors(self, batch: Batch, positions: Tensor) -> Tensor:
        """(B,) mean squared errors at positions (B,n,2): (x, y), (-1,-1) is the upper left corner."""
        if batch.images is None:
            fits = "no data.cache"
            raise InputError("no-pictures", "this stage is trained on pictures", where=batch.ids[0], fits=fits)
        at = positions.to(batch.images)
        seen = nn.functional.grid_sample(batch.images, at[:, None], padding_mode="border", align_corners=False)
        predicted: Tensor = self.network(at)
        return (predicted - seen[:, :, 0].transpose(1, 2)).square().mean((1, 2))

    def reaches(self) -> Mapping[str, frozenset[str]]:
        return {"error": frozenset({"all"})}


class Colours(Stage):
    """Trains a small network that knows the mean colour of the pictures at each position."""

    api: ClassVar[int] = 1
    Config = ColoursConfig
    examples: ClassVar[tuple[Example, ...]] = (Example({"width": 8, "positions": 16}),)

    def __init__(self, config: ColoursConfig) -> None:
        self.turn = ColoursTurn(config)
        self.turns = {"colours": self.turn}

    @classmethod
    def build(cls, config: ColoursConfig, setup: StageSetup) -> Colours:
        return cls(config)

    @property
    def averaged(self) -> nn.Module:
        return self.turn.network

    def save(self, folder: Path) -> None:
        """`weights.safetensors`, of the network."""
        folder.mkdir(parents=True, exist_ok=True)
        tensors = {name: tensor.cpu().contiguous() for name, tensor in self.averaged.state_dict().items()}
        save_file(tensors, folder / "weights.safetensors")

    @torch.no_grad()
    def validate(self, batches: Iterable[Batch]) -> Mapping[str, float]:
        """`error`: over a grid of positions, the same at every call."""
        line = torch.linspace(-1, 1, 16)
        grid = torch.cartesian_prod(line, line)
        found = [self.turn.errors(batch, grid.expand(len(batch.ids), -1, -1)) for batch in batches]
        return {"error": float(torch.cat(found).mean())} if found else {}
