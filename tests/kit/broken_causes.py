"""Parts with one fault each, which makes many checks fail where it is not told as their cause."""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any, ClassVar, Literal

import torch
from good_codec import PatchCodec
from good_conditioner import Spoken
from good_denoiser import PatchNet
from good_sampler import Straight
from pydantic import model_validator
from torch import Tensor, nn

from ldmkit import Denoise, Example, Grid, Process, Signal, Step

COUNTER = itertools.count(1)


class Stillborn(Spoken):
    """Cannot be built."""

    def __init__(self, config: Any = None):
        super().__init__(config)
        raise RuntimeError("out of luck")


class StillbornNet(PatchNet):
    """Cannot be built."""

    def __init__(self, config: Any = None):
        super().__init__(config)
        raise RuntimeError("out of luck")


class StillbornSampler(Straight):
    """Its validator fails for a reason that is not the config's."""

    @model_validator(mode="after")
    def _fails(self) -> Any:
        raise RuntimeError("out of luck")


class Counted(Spoken):
    """Remembers how often it was called."""

    def forward(self, inputs: list[Any]) -> Signal:
        found: Any = super().forward(inputs)
        return found._replace(value=found.value + 0.01 * next(COUNTER))


class CountedNet(PatchNet):
    """Remembers how often it was called."""

    def forward(self, *given: Any, **named: Any) -> Tensor:
        return super().forward(*given, **named) + 0.01 * next(COUNTER)


class Drawn(Spoken):
    """Draws from torch's global generator."""

    def forward(self, inputs: list[Any]) -> Signal:
        found: Any = super().forward(inputs)
        return found._replace(value=found.value + 0.01 * torch.randn_like(found.value))


class Peeking(Spoken):
    """Reads the global generator, and puts it back."""

    def forward(self, inputs: list[Any]) -> Signal:
        found: Any = super().forward(inputs)
        with torch.random.fork_rng(devices=[]):
            return found._replace(value=found.value + 0.01 * torch.randn_like(found.value))


class DrawnSampler(Straight):
    """Draws from Python's global generator."""

    def steps(
        self, denoise: Denoise, x: Tensor, sigmas: Sequence[float], noise: Callable[[int], Tensor]
    ) -> Iterator[Step]:
        return super().steps(denoise, x + 0.01 * random.random(), sigmas, noise)


class DrawnGrid(Grid):
    """Moves Python's global generator, and makes the same levels all the same."""

    def sigmas(self, process: Process, steps: int) -> list[float]:
        random.random()
        low, high = process.sigma_min, min(process.sigma_max, 100.0)
        return [low + (high - low) * (steps - i) / steps for i in range(steps + 1)]


class Normed(Spoken):
    """Normalises over the batch, in training mode."""

    def __init__(self, config: Any = None):
        super().__init__(config)
        self.norm = nn.BatchNorm1d(self.dim)

    def forward(self, inputs: list[Any]) -> Signal:
        found: Any = super().forward(inputs)
        return found._replace(value=self.norm(found.value))


class NormedNet(PatchNet):
    """Normalises over the batch, in training mode."""

    def __init__(self, config: Any = None):
        super().__init__(config)
        self.norm = nn.BatchNorm2d(self.channels)

    def forward(self, *given: Any, **named: Any) -> Tensor:
        return self.norm(super().forward(*given, **named))


class NormedCodec(PatchCodec):
    """Normalises over the batch, in training mode."""

    def __init__(self, config: Any = None):
        super().__init__(config)
        self.norm = nn.BatchNorm2d(self.channels)

    def encode(self, images: Tensor, noise: Tensor | None = None) -> Tensor:
        return self.norm(super().encode(images, noise))


class Chosen(Straight):
    """Right in its default, wrong behind a choice that no example takes."""

    examples: ClassVar[tuple[Example, ...]] = (Example(),)
    ends: Literal["well", "early"] = "well"
    doubled: int = 1

    def steps(
        self, denoise: Denoise, x: Tensor, sigmas: Sequence[float], noise: Callable[[int], Tensor]
    ) -> Iterator[Step]:
        for step in super().steps(denoise, x, sigmas, noise):
            wrong = self.ends == "early" or self.doubled == 2
            yield replace(step, x=step.x * 1.5) if wrong else step


class Numbered(Chosen):
    """Wrong for a number that its example names."""

    examples: ClassVar[tuple[Example, ...]] = (Example(vary={"ends": ("well",), "doubled": (1, 2)}),)


class Refusing(Straight):
    """Has a value that its examples refuse."""

    examples: ClassVar[tuple[Example, ...]] = (Example(),)
    mode: Literal["plain", "table"] = "plain"
    table: tuple[float, ...] = ()

    @model_validator(mode="after")
    def _together(self) -> Any:
        if (self.mode == "table") != bool(self.table):
            raise ValueError("mode 'table' and a table go together")
        return self


class Undocumented(Spoken):
    examples = Spoken.examples
