"""DeepCache (Ma et al. 2024, arXiv:2312.00858): the U-Net's deep features are computed in every N-th call only."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Self

from ldmkit_denoisers.config import SMALL
from pydantic import Field
from torch import Tensor

from ldmkit import Adapter, CompositionError, Context, Example, Frame, Tap, Value

UNET = {"type": "unet", "config": {**SMALL, "attention": ("none", "self"), "blocks": 2}}
"""A U-Net for examples."""


class DeepCacheConfig(Value):
    """When deep features are computed, and where the cut is.

    Args:
        interval: N of section 3.3: of N calls of the network in a row the first is whole; 1: all of them.
        branch: the skip below which features are kept, counted from the network's input as in the authors' code
            (`cache_branch_id`): 0 keeps all but the first convolution and the last block.
    """

    interval: int = Field(default=3, ge=1, le=10_000)
    branch: int = Field(default=0, ge=0, le=10_000)


@dataclass
class Kept:
    """What one run keeps: the feature (B, C, h, w) of the last whole call, at `sigma`, and the calls since then."""

    value: Tensor
    sigma: float
    calls: int = 1


@dataclass(frozen=True)
class CacheSchedule:
    """State of a run: how often to compute, and under what to keep it; `window` tells patches from one another."""

    name: str
    branch: int
    interval: int
    window: tuple[int, ...] = ()

    def crop(self, top: int, left: int, height: int, width: int) -> CacheSchedule:
        """The plan for a window of the latents."""
        return replace(self, window=(top, left, height, width))


@dataclass(frozen=True)
class Reuse:
    """Tap at the gate of a branch; another pipeline's adapter of the same name may cut elsewhere."""

    name: str
    branch: int

    def skip(self, frame: Frame) -> Tensor | None:
        """The kept feature, where this call is none of the N-th."""
        plan, kept = self._found(frame)
        if plan is None or kept is None or frame.sigma is None:
            return None
        # a level above the kept one: a sampler that adds noise has gone back, and begins anew
        if kept.calls % plan.interval == 0 or frame.sigma > kept.sigma or kept.value.shape[0] != frame.x.shape[0]:
            return None
        kept.calls += 1
        return kept.value

    def __call__(self, value: Tensor, frame: Frame) -> Tensor:
        plan, _ = self._found(frame)
        if plan is not None and plan.interval > 1 and frame.sigma is not None:
            frame.context.memory[plan] = Kept(value, frame.sigma)
        return value

    def _found(self, frame: Frame) -> tuple[CacheSchedule | None, Kept | None]:
        plan = frame.context.adapters.get(self.name)
        if plan is None or plan.branch != self.branch:
            return None, None
        return plan, frame.context.memory.get(plan)


class DeepCache(Adapter):
    """Keeps the map that the way up joins with skip `branch`, and gives it to the calls between whole ones.

    It has no weights and no slots. What it keeps belongs to one run and one batch of views; in training, where no noise
    level is given, it does nothing. Residuals that other adapters add deeper than the cut act in whole calls.
    """

    Config = DeepCacheConfig
    config: DeepCacheConfig
    examples = (Example(denoiser=UNET), Example({"interval": 2, "branch": 2}, denoiser=UNET))

    def __init__(self, config: DeepCacheConfig | None = None):
        super().__init__(config)
        self.slots = {}

    def taps(self, name: str) -> Mapping[str, Tap]:
        """At `deep.<branch>`."""
        return {f"deep.{self.config.branch}": Reuse(name, self.config.branch)}

    def prepare(self, context: Context, name: str) -> CacheSchedule | None:
        """How often to compute; None where no run is known."""
        return None if context.run is None else CacheSchedule(name, self.config.branch, self.config.interval)

    def tuned(self, **changes: Any) -> Self:
        """With another `interval`.

        Raises:
            CompositionError: `not-tunable`: another `branch` is another port.
        """
        if changes.get("branch", self.config.branch) != self.config.branch:
            what = f"the cut is at skip {self.config.branch}, where the adapter is attached"
            raise CompositionError("not-tunable", what, where="branch", fits="a new adapter with that branch")
        return super().tuned(**changes)
