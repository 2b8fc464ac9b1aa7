"""A toy stage to watch and check: one colour a picture, told by a class, boxes or a map; steps of milliseconds."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import tiny_parts
import torch
from ldmkit_training.loop.ema import Ema, EmaSection, averaged_weights
from ldmkit_training.stages.denoiser.config import DenoiserConfig
from ldmkit_training.stages.denoiser.dropout import ConditionDropout
from ldmkit_training.stages.denoiser.objective import DenoiserTurn
from ldmkit_training.stages.denoiser.section import DenoiserObjective
from ldmkit_training.stages.pipeline import PipelineStage
from PIL import Image

from ldmkit import Batch, Draws, Stage, StageSetup

SIZE = (8, 8)
COLOURS = torch.tensor([[0.9, -0.9, -0.9], [-0.9, 0.9, -0.9], [-0.9, -0.9, 0.9], [0.9, 0.9, -0.9], [0.0, 0.0, 0.0]])


def toy_batch(step: int, rows: int = 8, seed: int = 0) -> Batch:
    """Pictures of one colour; the class says which, the boxes and the map say something about their halves."""
    draws = Draws(seed, step, tuple(range(rows)))
    kinds = (draws.uniform("class") * 5).long()
    left = draws.uniform("left") < 0.5
    images = COLOURS[kinds][:, :, None, None].repeat(1, 1, *SIZE)
    inputs = []
    for i in range(rows):
        half = slice(0, 4) if left[i] else slice(4, 8)
        images[i, :, :, half] *= 0.3
        labels = torch.zeros(SIZE, dtype=torch.int64)
        labels[:, half] = 1
        box = [0.0, 0.0, 0.5, 1.0] if left[i] else [0.5, 0.0, 1.0, 1.0]
        inputs.append({"label": int(kinds[i]), "layout": [{"label": "cat", "box": box}], "semantic": labels})
    return Batch(tuple(f"toy-{step}-{i}" for i in range(rows)), images, None, None, inputs, SIZE, draws)


class ToyStage(PipelineStage):
    """Trains `tiny_parts.scene_pipeline()`, the real turn and all; `frozen_parts` are left as they are."""

    Config = DenoiserConfig

    @classmethod
    def build(cls, config: DenoiserConfig, setup: StageSetup) -> ToyStage:
        return cls()

    def __init__(
        self,
        frozen_parts: tuple[str, ...] = (),
        objective: DenoiserObjective | None = None,
        turn: Callable[..., DenoiserTurn] = DenoiserTurn,
    ) -> None:
        self.read(tiny_parts.scene_pipeline())
        every = {"denoiser": self.pipeline.denoiser, **self.pipeline.conditioners}
        trained = {name: part for name, part in every.items() if any(True for _ in part.parameters())}
        trained = {name: part for name, part in trained.items() if name not in frozen_parts}
        for part in trained.values():
            part.requires_grad_(True).train()
        rates = {"layout": 0.1, "label": 0.2, "semantic": 0.3}
        self.objective = objective or DenoiserObjective(dropout=ConditionDropout(rates=rates))
        self.turn = turn(self.pipeline, self.objective, trained)
        self.denoising = self.turn
        self.turns = {"denoiser": self.turn}
        self._frozen = {"codec": self.pipeline.codec, **{name: every[name] for name in frozen_parts}}

    @property
    def averaged(self) -> torch.nn.Module:
        return self.turn.trained

    @property
    def frozen(self) -> Mapping[str, torch.nn.Module]:
        return self._frozen


class ToyView:
    """What a callback needs of the engine."""

    def __init__(self, stage: Stage, out: Path, average: bool = True) -> None:
        self.stage, self.out, self.main = stage, out, True
        self.ema = Ema(stage.averaged, EmaSection(decay=0.5)) if average else None
        self.figures: dict[int, dict[str, float]] = {}
        self.pictures: list[tuple[str, int]] = []
        self.said: list[str] = []

    @property
    def has_average(self) -> bool:
        return self.ema is not None

    def averaged(self) -> AbstractContextManager[None]:
        return averaged_weights(self.stage, self.ema)

    def track(self, figures: Mapping[str, float], step: int) -> None:
        self.figures.setdefault(step, {}).update(figures)

    def picture(self, name: str, image: Image.Image, step: int) -> None:
        assert image.mode == "RGB"
        self.pictures.append((name, step))

    def say(self, text: str) -> None:
        self.said.append(text)


def train(stage: Stage, steps: int, view: ToyView | None = None, callback: Any = None, rows: int = 8) -> list[float]:
    """A plain loop over the stage's turns with Adam; the callback after each `callback.every` steps."""
    optimisers = {
        name: torch.optim.Adam([p for p in turn.parameters() if p.requires_grad], 3e-3)
        for name, turn in stage.turns.items()
    }
    losses = []
    for step in range(steps):
        for name, turn in stage.turns.items():
            optimisers[name].zero_grad()
            loss = turn(toy_batch(step, rows), step).total
            loss.backward()
            optimisers[name].step()
            losses.append(float(loss.detach()))
        if view is not None and view.ema is not None:
            view.ema.update()
        if callback is not None and (step + 1) % callback.every == 0:
            callback(view, step + 1)
    return losses


def weights(stage: Stage) -> dict[str, torch.Tensor]:
    """Everything that a stage may change or read."""
    found = {f"{n}.{k}": t.clone() for n, turn in stage.turns.items() for k, t in turn.state_dict().items()}
    return found | {f"{n}.{k}": t.clone() for n, module in stage.frozen.items() for k, t in module.state_dict().items()}


def same(one: Mapping[str, torch.Tensor], other: Mapping[str, torch.Tensor]) -> bool:
    """Bit for bit."""
    return one.keys() == other.keys() and all(torch.equal(tensor, other[name]) for name, tensor in one.items())
