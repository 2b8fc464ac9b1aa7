"""The running average of weights, and swapping it in temporarily."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor, nn

from ldmkit import Stage, Value, WeightsError
from ldmkit_training.loop.sharding import sharded_like


class EmaSection(Value):
    """Exponential moving average of the weights.

    Args:
        decay: share of the average that a step keeps.
        warmup: keep min(decay, (1 + n) / (10 + n)) at update n = 1, 2, ..., so that early weights are soon forgotten.
    """

    decay: Annotated[float, Field(ge=0, lt=1)] = 0.9999
    warmup: bool = True


class Ema:
    """The average of a module's trained parameters, in float32 beside it; buffers are not averaged.

    Args:
        module: whose parameters that require a gradient are averaged, from their values now.
    """

    def __init__(self, module: nn.Module, section: EmaSection) -> None:
        self.section = section
        self.updates = 0
        self._live = {name: p for name, p in module.named_parameters() if p.requires_grad}
        self.tensors = {name: p.detach().clone().float() for name, p in self._live.items()}

    def decay(self) -> float:
        """The decay of the next update."""
        n = self.updates + 1
        return min(self.section.decay, (1 + n) / (10 + n)) if self.section.warmup else self.section.decay

    @torch.no_grad()
    def update(self) -> None:
        """One step: average += (1 - decay) * (weights - average)."""
        decay = self.decay()
        self.updates += 1
        live = [p.detach().float() for p in self._live.values()]
        torch._foreach_lerp_(list(self.tensors.values()), live, 1 - decay)

    @torch.no_grad()
    def restore(self, tensors: Mapping[str, Tensor], updates: int) -> None:
        """Load a saved average.

        Raises:
            WeightsError: `ema-keys`: it belongs to other weights.
        """
        if tensors.keys() != self.tensors.keys():
            other = sorted(tensors.keys() ^ self.tensors.keys())
            raise WeightsError("ema-keys", f"the saved average is of other weights: {other[0]!r}")
        for name, tensor in self.tensors.items():
            tensor.copy_(sharded_like(tensors[name], tensor))
        self.updates = updates

    @contextmanager
    def swapped(self) -> Iterator[None]:
        """Inside the block the module has the averaged weights; afterwards its own are restored bit for bit."""
        kept = {name: p.detach().clone() for name, p in self._live.items()}
        try:
            with torch.no_grad():
                for name, p in self._live.items():
                    p.copy_(self.tensors[name])
            yield
        finally:
            with torch.no_grad():
                for name, p in self._live.items():
                    p.copy_(kept[name])


@contextmanager
def averaged_weights(stage: Stage, ema: Ema | None) -> Iterator[None]:
    """`stage.averaged` holds its running average and is in evaluation mode inside the block; None: its own weights."""
    modes = [(module, module.training) for module in stage.averaged.modules()]
    stage.averaged.eval()
    try:
        if ema is None:
            yield
        else:
            with ema.swapped():
                yield
    finally:
        for module, mode in modes:
            module.training = mode
