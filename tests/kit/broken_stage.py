"""Training stages with one fault each, by the check that must find it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from good_stage import Mean, MeanTurn
from torch import nn

from ldmkit import Batch, Loss


class NoTurn(Mean):
    """Nothing is trained."""

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        self.turns = {}


class AllFrozen(Mean):
    """A turn without a parameter for its optimiser."""

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        self.turn.requires_grad_(False)


class AveragesAnother(Mean):
    """The average is kept of a network that no optimiser changes."""

    @property
    def averaged(self) -> nn.Module:
        return nn.Linear(1, 1)


class RowsTurn(MeanTurn):
    def forward(self, batch: Batch, step: int) -> Loss:
        made = super().forward(batch, step)
        return made._replace(total=made.total.expand(len(batch.ids)))


class Rows(Mean):
    """A loss a row."""

    turn_class = RowsTurn


class HalfTurn(MeanTurn):
    def forward(self, batch: Batch, step: int) -> Loss:
        made = super().forward(batch, step)
        return made._replace(parts={**made.parts, "grey": 2 * made.parts["grey"]})


class Half(Mean):
    """Parts that do not add up to the total."""

    turn_class = HalfTurn


class AttachedTurn(MeanTurn):
    def forward(self, batch: Batch, step: int) -> Loss:
        made = super().forward(batch, step)
        return made._replace(terms={"error": made.parts["error"]})


class Attached(Mean):
    """Terms for the log that keep the graph."""

    turn_class = AttachedTurn


class GlobalTurn(MeanTurn):
    def forward(self, batch: Batch, step: int) -> Loss:
        factor = 1 + torch.rand(())
        made = super().forward(batch, step)
        return Loss(made.total * factor, made.terms, {name: part * factor for name, part in made.parts.items()})


class Global(Mean):
    """Draws from the global generator."""

    turn_class = GlobalTurn


class CountingTurn(MeanTurn):
    calls = 0

    def forward(self, batch: Batch, step: int) -> Loss:
        self.calls += 1
        made = super().forward(batch, step)
        return Loss(made.total * self.calls, {}, {name: part * self.calls for name, part in made.parts.items()})


class Counting(Mean):
    """Depends on how often it was called."""

    turn_class = CountingTurn


class LeftOutTurn(MeanTurn):
    def groups(self) -> Mapping[str, list[nn.Parameter]]:
        return {"colour": []}


class LeftOut(Mean):
    """A parameter in no group."""

    turn_class = LeftOutTurn


class SilentTurn(MeanTurn):
    def reaches(self) -> Mapping[str, frozenset[str]]:
        return {"error": frozenset({"colour"})}


class Silent(Mean):
    """Says nothing of a part of its loss."""

    turn_class = SilentTurn


class StrangeTurn(MeanTurn):
    def reaches(self) -> Mapping[str, frozenset[str]]:
        return dict.fromkeys(("error", "grey"), frozenset({"color"}))


class Strange(Mean):
    """Names a group that there is not."""

    turn_class = StrangeTurn


class Thawing(Mean):
    """Moves what it calls frozen."""

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        self.turn.register_forward_hook(lambda *_: self.move())

    def move(self) -> None:
        self.scale.weight.data += 1e-3


class Trained(Mean):
    """Calls frozen what it trains."""

    @property
    def frozen(self) -> Mapping[str, nn.Module]:
        return {"colour": self.turn.colour}


class WritingTurn(MeanTurn):
    def forward(self, batch: Batch, step: int) -> Loss:
        batch.images.mul_(0.5)
        return super().forward(batch, step)


class Writing(Mean):
    """Writes into the batch."""

    turn_class = WritingTurn


class Random(Mean):
    """Other figures at every call."""

    def validate(self, batches: Iterable[Batch]) -> Mapping[str, float]:
        return {"error": float(torch.rand(()))}


class Switching(Mean):
    """Leaves evaluation mode on."""

    def validate(self, batches: Iterable[Batch]) -> Mapping[str, float]:
        self.turn.eval()
        return super().validate(batches)


class Unsaved(Mean):
    """Writes nothing."""

    def save(self, folder: Path) -> None:
        pass


class Halving(Mean):
    """Saves in half precision by changing its own weights."""

    def save(self, folder: Path) -> None:
        self.averaged.half()
        super().save(folder)


BROKEN: dict[str, list[Any]] = {
    "turns": [NoTurn, AllFrozen, AveragesAnother],
    "loss": [Rows, Half, Attached],
    "determinism": [Global, Counting],
    "groups": [LeftOut, Silent, Strange],
    "frozen": [Thawing, Trained],
    "inputs-untouched": [Writing],
    "validate": [Random, Switching],
    "save": [Unsaved, Halving],
}
