"""One optimiser step: losses, gradients and update of every active turn, and the resulting figures."""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor

from ldmkit import Batch, InputError, RunError, Turn
from ldmkit_training.before.recipe import Recipe
from ldmkit_training.loop.devices import autocast, on_device, scaler, seed_everything, summed
from ldmkit_training.loop.optimisers import set_rate
from ldmkit_training.loop.sharding import gathered

REMEMBERED = 256
"""Number of steps whose sample ids are kept, for errors about a loss that is checked later."""

SHOWN_IDS = 16


class Meter:
    """Means of figures over the steps since they were last read, accumulated on the device."""

    def __init__(self) -> None:
        self.sums: dict[str, Tensor] = {}
        self.counts: dict[str, int] = {}

    def add(self, figures: Mapping[str, Tensor]) -> None:
        """Add a step's figures: this process's share of the means over the whole batch."""
        for name, value in figures.items():
            value = value.detach().float()
            self.sums[name] = self.sums[name] + value if name in self.sums else value
            self.counts[name] = self.counts.get(name, 0) + 1

    def read(self, accelerator: Any) -> dict[str, float]:
        """The means over all processes; resets the accumulator."""
        totals = summed(self.sums, accelerator)
        means = {name: total / self.counts[name] for name, total in totals.items()}
        self.sums, self.counts = {}, {}
        return means


class Steps:
    """The networks in training, and their updates.

    Args:
        turns: the turns, wrapped for distributed training if there are several processes.
        optimisers: one per turn.
        accelerator: accelerate's object of this process.

    Attributes:
        half: whether the current step has already changed weights. (Fused optimisers do not bump version counters.)
    """

    def __init__(
        self,
        recipe: Recipe,
        turns: Mapping[str, Turn],
        optimisers: Mapping[str, torch.optim.Optimizer],
        accelerator: Any,
    ) -> None:
        self.recipe, self.turns, self.optimisers, self.accelerator = recipe, turns, optimisers, accelerator
        self.device: torch.device = accelerator.device
        self.scaler = scaler(recipe.precision, self.device)
        self.meter = Meter()
        self.rate = 0.0
        self.loss: Tensor | None = None
        self.half = False
        self._first = next(iter(turns))
        self._ids: deque[tuple[int, list[str]]] = deque(maxlen=REMEMBERED)
        self._bad = torch.full((), torch.inf, device=self.device)

    def run(self, step: int, parts: Sequence[Batch]) -> None:
        """Optimiser step `step`, counted from 0, on this process's micro-batches.

        Raises:
            RunError: `loss-not-finite`; on the CPU it is raised before this turn changes any weight.
        """
        seed_everything(self.recipe.seed, step, self.accelerator.process_index)
        self._ids.append((step, [name for part in parts for name in part.ids]))
        moved = [on_device(part, self.device) for part in parts]
        factor = self.recipe.schedule.factor(step, self.recipe.steps)
        for name, turn in self.turns.items():
            inner: Turn = self.accelerator.unwrap_model(turn)
            if inner.active(step):
                rate = set_rate(self.optimisers[name], factor)
                self.rate = rate if name == self._first else self.rate
                self._turn(name, turn, step, moved)
        self.scaler.update() if self.scaler.is_enabled() else None
        self.half = False

    def _turn(self, name: str, turn: Turn, step: int, parts: Sequence[Batch]) -> None:
        optimiser = self.optimisers[name]
        optimiser.zero_grad(set_to_none=True)
        figures: dict[str, Tensor] = {}
        processes = self.accelerator.num_processes
        for i, part in enumerate(parts):
            share = len(part.ids) / self.recipe.data.batch
            with nullcontext() if i == len(parts) - 1 else self.accelerator.no_sync(turn):
                with autocast(self.recipe.precision, self.device), with_sample_ids(part):
                    loss = turn(part, step)
                # several processes average their gradients
                self.scaler.scale(loss.total * (share * processes)).backward()
            for key, value in {"loss": loss.total, **loss.terms}.items():
                value = value.detach().float() * share
                figures[key] = figures[key] + value if key in figures else value
        self.scaler.unscale_(optimiser) if self.scaler.is_enabled() else None
        norm = self._clip(optimiser)
        self._judge(step, figures["loss"], norm)
        self.half = True
        self.scaler.step(optimiser)
        if name == self._first:
            self.loss = figures["loss"] * processes  # the mean over this process's rows
        # the norm is the same on every process, whereas figures are summed over processes
        figures["grad_norm"] = norm / processes
        prefix = "" if name == self._first else f"{name}/"
        self.meter.add({prefix + key: value for key, value in figures.items()})

    def _clip(self, optimiser: torch.optim.Optimizer) -> Tensor:
        """Norm of a turn's gradients before clipping."""
        trained = [p for group in optimiser.param_groups for p in group["params"] if p.grad is not None]
        norm = torch.nn.utils.get_total_norm([p.grad for p in trained if p.grad is not None])
        if self.recipe.clip is not None:
            torch.nn.utils.clip_grads_with_norm_(trained, self.recipe.clip, norm)
        return gathered(norm)

    def _judge(self, step: int, loss: Tensor, norm: Tensor) -> None:
        # float16's loss scaling expects overflowing gradients and skips such steps
        both = loss if self.scaler.is_enabled() else loss + norm
        bad = torch.where(torch.isfinite(both), torch.inf, float(step))
        self._bad = torch.minimum(self._bad, bad.to(self._bad.dtype))
        if self.device.type == "cpu":
            self.check()

    def check(self) -> None:
        """Whether all losses and gradients so far were finite; on CUDA this waits for the device.

        Raises:
            RunError: `loss-not-finite`, naming the step and the samples of its batch on this process.
        """
        first = float(self._bad)
        if first == torch.inf:
            return
        ids = next((ids for step, ids in self._ids if step == int(first)), [])
        shown = ", ".join(ids[:SHOWN_IDS]) + (f" and {len(ids) - SHOWN_IDS} more" if len(ids) > SHOWN_IDS else "")
        what = f"the loss or its gradient became NaN or infinite; samples of the batch: {shown}"
        raise RunError("loss-not-finite", what, where=f"step {int(first) + 1}")


@contextmanager
def with_sample_ids(batch: Batch) -> Iterator[None]:
    """Inside the block, errors name the sample instead of the position in the batch."""
    try:
        yield
    except InputError as error:
        place = re.match(r"inputs(?:\[(\d+)\])?", error.where or "")
        if place is not None:
            error.where = f"sample {batch.ids[int(place[1] or 0)]}{(error.where or '')[place.end() :]}"
        raise
