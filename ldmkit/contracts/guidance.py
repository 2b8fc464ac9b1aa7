"""The contract of guidance: the views of the model that a rule evaluates, and how it combines their estimates."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Protocol, TypeAlias

from torch import Tensor

from ldmkit.contracts.example import Example
from ldmkit.contracts.value import Value

if TYPE_CHECKING:
    from ldmkit.contracts.denoiser import Denoiser
    from ldmkit.contracts.ports import Tap
    from ldmkit.contracts.process import Process
    from ldmkit.contracts.step import Run

View: TypeAlias = frozenset[str]
"""A view of the conditioning, given by the names of the inputs that are dropped (replaced by their nulls)."""


@dataclass(frozen=True)
class Perturbed:
    """A view evaluated with a perturbed network: extra taps for this view only, or a weaker network.

    It takes a separate call; equal views are evaluated once. Taps must compare equal if they do the same.

    Args:
        drop: names of the inputs that are dropped, as in a plain view.
        taps: pairs of port name and tap; the taps act after those of adapters.
        denoiser: replaces the model's network; it must have the same slots. Adapters do not act on it.
        process: the process of that network; None for the model's.
    """

    drop: View = frozenset()
    taps: tuple[tuple[str, Tap], ...] = ()
    denoiser: Denoiser | None = None
    process: Process | None = None


class Evaluate(Protocol):
    """Access to the model for a guidance rule.

    `names` are the conditions that can be dropped. `run` holds the noise levels of the run and its progress
    (`run.progress(sigma)`). `memory` is where a rule keeps state between steps, under a key of its own (the rule
    itself); it is empty at the start of every run and not shared between runs.
    """

    names: tuple[str, ...]
    process: Process

    @property
    def run(self) -> Run: ...

    @property
    def memory(self) -> dict[Any, Any]: ...

    @property
    def ports(self) -> Collection[str]:
        """Names of the network's ports, at which the taps of a `Perturbed` view may act."""

    @property
    def denoiser(self) -> Denoiser:
        """The model's network."""

    def __call__(self, x: Tensor, sigma: float, *views: View | Perturbed) -> list[Tensor]:
        """x0 estimates, one per view: plain views in one batch, perturbed ones in a separate call for each network.

        Raises:
            CompositionError: `unknown-port`.
        """

    def decode(self, latents: Tensor) -> Tensor:
        """Pictures decoded from latents by the codec, differentiable."""


class Guidance(Value, ABC):
    """Chooses the views to evaluate and combines their x0 estimates."""

    examples: ClassVar[tuple[Example, ...]] = (Example(),)
    api: ClassVar[int]  # both as `Part` has them

    @abstractmethod
    def __call__(self, evaluate: Evaluate, x: Tensor, sigma: float) -> Tensor:
        """The guided x0 estimate."""

    def split(self, evaluate: Evaluate, x: Tensor, sigma: float) -> tuple[Tensor, Tensor] | None:
        """(x0 estimate, gradient of log p(y | x) by x with its scale) for samplers that apply the gradient themselves,
        so that x0 + sigma^2 gradient is the guided estimate; None if nothing is to be left to the sampler."""
        return None

    def views(self, names: Sequence[str]) -> int:
        """Maximum number of distinct views that one call evaluates for these conditions, `Perturbed` ones included."""
        return 1

    def perturbed(self, names: Sequence[str]) -> int:
        """How many of `views` are `Perturbed`, and so are not rows of the batch of plain views."""
        return 0

    def weights(self, names: Sequence[str], sigma: float) -> Mapping[View, float] | None:
        """The non-zero weight of each view's estimate at a noise level, for a model with these conditions. Used to
        warn about inputs that have no effect; None if unknown, in which case there are no such warnings."""
        return None

    @property
    def differentiates(self) -> bool:
        """Whether it takes gradients through the network."""
        return False

    def plain(self, scale: float) -> Guidance | None:
        """The rule with one scale for all conditions and its other options neutral; None if it has no such form. Scale
        1 must give the conditional estimate c, 0 the unconditional u, and s with one condition u + s (c - u)."""
        return self.model_copy(update={"scale": scale}) if "scale" in type(self).model_fields else None

    def neutral(self) -> Guidance | None:
        """The rule with its options at the scale where guidance has no effect; None if there is no such scale."""
        return self.plain(1.0)
