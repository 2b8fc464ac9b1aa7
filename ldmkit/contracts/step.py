"""What is fixed for a run, and what lives for one call of the network."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple, TypeAlias

from torch import Tensor

from ldmkit.contracts.signals import Signal


class Run(NamedTuple):
    """What is fixed for one run: the sigmas it visits (decreasing, N+1 values) and the latents' size.

    `size` has one number an axis: (h, w) of pictures, (t, h, w) of videos, () of vectors."""

    sigmas: tuple[float, ...]
    size: tuple[int, ...]

    def progress(self, sigma: float) -> float:
        """Fraction of the steps that are done when the network is called at `sigma`: 0 at the first step."""
        steps = max(len(self.sigmas) - 1, 1)
        reached = sum(1 for s in self.sigmas if s >= sigma * (1 - 1e-9)) - 1
        return min(max(reached, 0), steps) / steps


class Arrivals(NamedTuple):
    """A run whose steps do not end at the next of its noise levels: where each goes, after which its state is taken for
    one at the next level, its scale in the process's own frame kept. diffusers' DDIM and PNDM do so.

    Args:
        levels: the level that each step ends at.
        origins: the level from which such a step would end at the run's next one.
    """

    levels: tuple[float, ...]
    origins: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Step:
    """After transition `index` of `count`: state x at sigma_next, and the x0 estimate it was made with."""

    index: int
    count: int
    sigma: float
    sigma_next: float
    x: Tensor
    x0: Tensor

    def copied(self) -> Step:
        """The same step in memory of its own, for who looks on: whatever is written into it, the run goes on as it was.

        A copy takes 15 us for latents of (1, 4, 64, 64); nothing is copied where nobody looks.
        """
        return replace(self, x=self.x.clone(), x0=self.x0.clone())


Denoise: TypeAlias = Callable[[Tensor, float], Tensor]
"""denoise(x, sigma) -> x0: all that a sampler sees of the model."""

Network: TypeAlias = "Callable[[Tensor, Tensor, Context, float | None], Tensor]"
"""(x, t, context, sigma) -> F: the call of a denoiser, by any execution plan."""


@dataclass
class Evaluations:
    """What a run has taken of its network so far.

    Args:
        made: calls.
        shortened: those of them in which a gate gave a stored value for a part of the network.
        reused: estimates that a cache gave without a call.
    """

    made: int = 0
    shortened: int = 0
    reused: int = 0


@dataclass
class Context:
    """What `Denoiser.prepare` returns: everything about the conditions that no step changes.

    `signals` are by slot name, adapters' slots included; `present[slot]` (B,) bool says which rows carry a
    real condition rather than a null. Denoisers subclass it to keep their projected keys and values. `memory` is what
    taps keep from call to call of one run: empty at its start, and no other run's.
    """

    signals: Mapping[str, Signal]
    present: Mapping[str, Tensor] = field(default_factory=dict)
    adapters: dict[str, Any] = field(default_factory=dict)
    run: Run | None = None
    memory: dict[Any, Any] = field(default_factory=dict, kw_only=True, repr=False, compare=False)


@dataclass
class Frame:
    """State of one forward: what taps see. x (B,C,*axes) is the scaled network input, t (B,) what the net reads.

    `sigma` is the host's noise level where the caller knows it; `scratch` is for taps of this forward.
    """

    x: Tensor
    t: Tensor
    context: Context
    sigma: float | None = None
    scratch: dict[str, Any] = field(default_factory=dict)
