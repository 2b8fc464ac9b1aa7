"""State of a run, and state of one call of the network."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple, TypeAlias

from torch import Tensor

from ldmkit.contracts.signals import Signal


class Run(NamedTuple):
    """The constants of a run: its sigmas (N+1 decreasing values) and the size of its latents.

    `size` has one number per axis: (h, w) for pictures, (t, h, w) for videos, () for vectors."""

    sigmas: tuple[float, ...]
    size: tuple[int, ...]

    def progress(self, sigma: float) -> float:
        """Fraction of the steps completed when the network is called at `sigma`; 0 in the first step."""
        steps = max(len(self.sigmas) - 1, 1)
        reached = sum(1 for s in self.sigmas if s >= sigma * (1 - 1e-9)) - 1
        return min(max(reached, 0), steps) / steps


class Arrivals(NamedTuple):
    """Where the steps of a run end if that is not its next noise level. After each step the state is treated as one at
    the next level, keeping its scale in the process's own scaling. diffusers' DDIM and PNDM do this.

    Args:
        levels: the level at which each step ends.
        origins: the level from which such a step would end at the run's next level.
    """

    levels: tuple[float, ...]
    origins: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Step:
    """The result of transition `index` of `count`: the state x at sigma_next, and the x0 estimate used for it.

    `stage` is the name of the running stage of a cascade, None in a run of one pipeline. Samplers do not set it.
    """

    index: int
    count: int
    sigma: float
    sigma_next: float
    x: Tensor
    x0: Tensor
    stage: str | None = None

    def copied(self) -> Step:
        """A deep copy for observers of the run, who may modify it without affecting the run.

        A copy takes 15 us for latents of (1, 4, 64, 64); without observers nothing is copied.
        """
        return replace(self, x=self.x.clone(), x0=self.x0.clone())


Denoise: TypeAlias = Callable[[Tensor, float], Tensor]
"""denoise(x, sigma) -> x0: the model as a sampler sees it."""

Network: TypeAlias = "Callable[[Tensor, Tensor, Context, float | None], Tensor]"
"""(x, t, context, sigma) -> F: the call of a denoiser under any execution plan."""


@dataclass
class Evaluations:
    """Counts of the network evaluations of a run so far.

    Args:
        made: calls of the network.
        shortened: calls in which a gate replaced part of the network by a stored value.
        reused: estimates that a cache returned without a call.
    """

    made: int = 0
    shortened: int = 0
    reused: int = 0


@dataclass
class Context:
    """The result of `Denoiser.prepare`: everything about the conditions that is constant over a run.

    `signals` are by slot name, including the adapters' slots; `present[slot]` (B,) bool marks the rows with a real
    condition rather than a null, and `given[slot]` those whose input was given, also where guidance drops it now (empty
    where that is not known). Denoisers subclass it to store their projected keys and values. `memory` holds state
    that taps keep between the calls of a run; it is empty at the start and not shared between runs. `time` is the
    time input of all rows of the current call, on the host; None in training, where rows differ, and elsewhere.
    """

    signals: Mapping[str, Signal]
    present: Mapping[str, Tensor] = field(default_factory=dict)
    adapters: dict[str, Any] = field(default_factory=dict)
    run: Run | None = None
    memory: dict[Any, Any] = field(default_factory=dict, kw_only=True, repr=False, compare=False)
    given: Mapping[str, Tensor] = field(default_factory=dict, kw_only=True)
    time: float | None = field(default=None, kw_only=True, compare=False)


@dataclass
class Frame:
    """State of one forward pass, passed to taps. x (B,C,*axes) is the scaled network input, t (B,) its time input.

    `sigma` is the noise level, or None if the caller does not provide it; `scratch` holds data of this pass for taps.
    """

    x: Tensor
    t: Tensor
    context: Context
    sigma: float | None = None
    scratch: dict[str, Any] = field(default_factory=dict)
