"""Optimisers and learning-rate schedules as a recipe names them.

A schedule is a pure function of the step, so that resuming needs only the step.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping
from itertools import accumulate
from typing import Annotated, Any, Literal, Self

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from ldmkit import SpecError, Value, suggest
from ldmkit_training.loop.libraries import (
    LIBRARIES,
    LibraryType,
    build_library,
    library_class,
    optimiser_numbers,
    restore_numbers,
)
from ldmkit_training.loop.sharding import sharded_like

Rate = Annotated[float, Field(ge=0)]
Count = Annotated[int, Field(ge=0)]
Moment = Annotated[float, Field(ge=0, lt=1)]


class OptimiserSection(Value):
    """The optimiser.

    Args:
        type: `adamw` (Loshchilov & Hutter 2019), `adam` (Kingma & Ba 2015) or `sgd`; or, if their libraries are
            installed, `adamw8bit` and `adam8bit` (bitsandbytes), `adafactor` (transformers; Shazeer & Stern 2018, with
            this rate) and `prodigy` (prodigyopt; Mishchenko & Defazio 2024), whose rate is a factor, usually 1.
        lr: learning rate, before the schedule's factor.
        betas: decay rates of Adam's two averages.
        eps: Adam's epsilon.
        weight_decay: decoupled for `adamw`, added to the gradient for the others.
        momentum: momentum of `sgd`.
        decay: which weights decay: `all`, or `matrices` (not norms, biases and embeddings).
        rates: turn name -> learning rate, for turns with a rate of their own (a discriminator).
        options: further arguments of a library's optimiser (`d_coef`, `clip_threshold` ...).
    """

    type: Literal["adamw", "adam", "sgd"] | LibraryType = "adamw"
    lr: Annotated[float, Field(gt=0)] = 1e-4
    betas: tuple[Moment, Moment] = (0.9, 0.999)
    eps: Annotated[float, Field(gt=0)] = 1e-8
    weight_decay: Rate = 0.01
    momentum: Moment = 0.9
    decay: Literal["all", "matrices"] = "matrices"
    rates: dict[str, Annotated[float, Field(gt=0)]] = Field(default_factory=dict)
    options: dict[str, bool | int | float | str | None] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _of_libraries(self) -> Self:
        if self.options and self.type not in LIBRARIES:
            what = f"{self.type!r} takes no options, but keys of this section"
            raise SpecError("unknown-option", what, where="optimiser.options", fits="an empty one")
        if self.type == "prodigy" and "lr" not in self.model_fields_set:
            what = "Prodigy finds its rate itself; `lr` is a factor of it, and the default is far too small a one"
            raise SpecError("prodigy-rate", what, where="optimiser.lr", fits="lr: 1.0")
        return self

    def check(self, turns: Collection[str]) -> None:
        """Check that every turn in `rates` is one of the stage's, and that the optimiser's library is installed.

        Raises:
            SpecError: `unknown-turn`, `optimiser-missing`, `unknown-option`.
        """
        if self.type in LIBRARIES:
            library_class(self.type, self.options)
        for name in self.rates:
            if name not in turns:
                what = f"this stage has no turn {name!r}"
                raise SpecError("unknown-turn", what, where=f"optimiser.rates.{name}", fits=suggest(name, turns))

    def build(self, turn: nn.Module, name: str) -> torch.optim.Optimizer:
        """The optimiser of a turn, over its parameters that require a gradient, ordered by name."""
        trained = [p for p in turn.parameters() if p.requires_grad]
        bare = _bare(turn) if self.decay == "matrices" else set()
        split = (
            ([p for p in trained if id(p) not in bare], self.weight_decay),
            ([p for p in trained if id(p) in bare], 0),
        )
        groups: list[dict[str, Any]] = [{"params": params, "weight_decay": decay} for params, decay in split if params]
        if not groups:
            raise SpecError("nothing-trained", f"turn {name!r} has no parameter that is trained", where="model")
        lr = self.rates.get(name, self.lr)
        made: torch.optim.Optimizer
        if self.type in LIBRARIES:
            given = {"betas": self.betas, "eps": self.eps}
            made = build_library(self.type, groups, lr, given, self.options)
        elif self.type == "sgd":
            made = torch.optim.SGD(groups, lr=lr, momentum=self.momentum)
        else:
            kind = torch.optim.AdamW if self.type == "adamw" else torch.optim.Adam
            made = kind(groups, lr=lr, betas=self.betas, eps=self.eps, fused=_fusible(trained))
        for group in made.param_groups:
            group["base_lr"] = lr
        return made


def _bare(turn: nn.Module) -> set[int]:
    """Ids of the parameters of norms and embeddings, and of all one-dimensional parameters."""
    plain = {id(p) for p in turn.parameters() if p.ndim < 2}
    tables = (m for m in turn.modules() if isinstance(m, (nn.Embedding, nn.EmbeddingBag)))
    return plain | {id(p) for table in tables for p in table.parameters(recurse=False)}


def _fusible(parameters: Iterable[Tensor]) -> bool:
    return all(type(p) is nn.Parameter and p.device.type in ("cpu", "cuda") for p in parameters)


def set_rate(optimiser: torch.optim.Optimizer, factor: float) -> float:
    """Scale every group's own rate by the schedule's factor; returns the first group's."""
    for group in optimiser.param_groups:
        group["lr"] = group["base_lr"] * factor
    return float(optimiser.param_groups[0]["lr"])


def optimiser_tensors(optimiser: torch.optim.Optimizer, turn: nn.Module) -> dict[str, Tensor]:
    """`<parameter>/<key>` -> tensor: the optimiser's state, by parameter name instead of number."""
    names = {id(p): name for name, p in turn.named_parameters()}
    found: dict[str, Tensor] = {}
    for parameter, state in optimiser.state.items():
        for key, value in state.items():
            if isinstance(value, Tensor):
                found[f"{names[id(parameter)]}/{key}"] = value
    return found


def optimiser_plain(optimiser: torch.optim.Optimizer, turn: nn.Module) -> dict[str, Any]:
    """The rest of an optimiser's state as plain data, named in the same way; see `optimiser_numbers`."""
    return optimiser_numbers(optimiser, {id(p): name for name, p in turn.named_parameters()})


def restore_optimiser(
    optimiser: torch.optim.Optimizer,
    turn: nn.Module,
    tensors: Mapping[str, Tensor],
    plain: Mapping[str, Any] = {},
) -> None:
    """Restore the state from `optimiser_tensors` and `optimiser_plain`; tensors move to their parameters' devices."""
    states: dict[str, dict[str, Any]] = {}
    for key, value in {**tensors, **plain.get("states", {})}.items():
        name, _, what = key.rpartition("/")
        states.setdefault(name, {})[what] = value
    parameters = dict(turn.named_parameters())
    optimiser.state.clear()
    for name, state in states.items():
        parameter = parameters[name]
        optimiser.state[parameter] = {
            what: _placed(optimiser, what, value, parameter) if isinstance(value, Tensor) else value
            for what, value in state.items()
        }
    if plain:
        restore_numbers(optimiser, plain["groups"])


def _placed(optimiser: torch.optim.Optimizer, what: str, value: Tensor, parameter: nn.Parameter) -> Tensor:
    # torch keeps Adam's count of steps on the CPU unless the update is fused
    stays = what == "step" and not optimiser.defaults.get("fused")
    return value if stays else sharded_like(value, parameter)


class _Schedule(Value):
    def factor(self, step: int, steps: int) -> float:
        """Factor of the learning rate at a step, counted from 0, in a run of `steps`."""
        raise NotImplementedError


class Warmed(_Schedule):
    """Linear warm-up to 1, then constant, linear or a half cosine down to `final` at the last step.

    Args:
        warmup: steps of the warm-up; its step n has the factor (n + 1) / warmup.
        final: factor at the end, for `linear` and `cosine`.
    """

    type: Literal["constant", "linear", "cosine"] = "constant"
    warmup: Count = 0
    final: Annotated[float, Field(ge=0, le=1)] = 0.0

    def factor(self, step: int, steps: int) -> float:
        """The factor at a step; see `_Schedule.factor`."""
        if step < self.warmup:
            return (step + 1) / self.warmup
        if self.type == "constant":
            return 1.0
        t = min(1.0, (step - self.warmup) / max(1, steps - self.warmup))
        shape = 1 - t if self.type == "linear" else 0.5 * (1 + math.cos(math.pi * t))
        return self.final + (1 - self.final) * shape


class Cycles(_Schedule):
    """The schedules of the published latent-diffusion configs: cycles, each with a warm-up of its own.

    A cycle rises from `start` to `peak` in its `warmup` and then falls to `floor`: by a half cosine over the rest of
    the cycle, or linearly as peak - (peak - floor) * n / length, with n counted from the start of the cycle. The final
    value of the last cycle is kept from then on.

    Args:
        type: `ldm-cosine` or `ldm-linear`.
        lengths: steps of each cycle.
        warmup, start, peak, floor: one value per cycle.
    """

    type: Literal["ldm-cosine", "ldm-linear"]
    lengths: tuple[Annotated[int, Field(ge=1)], ...]
    warmup: tuple[Count, ...]
    start: tuple[Rate, ...]
    peak: tuple[Rate, ...]
    floor: tuple[Rate, ...]

    @model_validator(mode="after")
    def _one_each(self) -> Self:
        for name in ("warmup", "start", "peak", "floor"):
            if len(getattr(self, name)) != len(self.lengths) or not self.lengths:
                what = f"{len(getattr(self, name))} numbers for {len(self.lengths)} cycle(s)"
                raise SpecError("cycles", what, where=f"schedule.{name}", fits="one each cycle, at least one cycle")
        return self

    def factor(self, step: int, steps: int) -> float:
        """The factor at a step; see `_Schedule.factor`."""
        ends = list(accumulate(self.lengths))
        cycle = next((i for i, end in enumerate(ends) if step <= end), len(ends) - 1)
        length, warmup = self.lengths[cycle], self.warmup[cycle]
        start, peak, floor = self.start[cycle], self.peak[cycle], self.floor[cycle]
        n = min(step - (ends[cycle] - length), length)
        if n < warmup:
            return start + (peak - start) * n / warmup
        if self.type == "ldm-linear":
            return floor + (peak - floor) * (length - n) / length
        t = min(1.0, (n - warmup) / max(1, length - warmup))
        return floor + 0.5 * (peak - floor) * (1 + math.cos(math.pi * t))


Schedule = Annotated[Warmed | Cycles, Field(discriminator="type")]
