"""The contract of guidance: what it may ask the model for, and what it answers."""

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
"""A view of the conditioning: the names of the inputs that are dropped (replaced by their nulls)."""


@dataclass(frozen=True)
class Perturbed:
    """A view by a disturbed network: taps that act on this view's rows alone, or a weaker network.

    It is evaluated in a call of its own; equal ones are evaluated once. Taps are values: what does the same is equal.

    Args:
        drop: names of the inputs that are dropped, as of a plain view.
        taps: pairs of the name of a port and the tap that acts there, after those of adapters.
        denoiser: in place of the model's own, with the same slots; adapters do not act on it.
        process: what that network predicts; None: the model's.
    """

    drop: View = frozenset()
    taps: tuple[tuple[str, Tap], ...] = ()
    denoiser: Denoiser | None = None
    process: Process | None = None


class Evaluate(Protocol):
    """What guidance may ask for.

    `names` are the conditions that can be dropped. `run` says which noise levels the run visits, and how far it is
    (`run.progress(sigma)`). `memory` is the run's own: what a rule remembers from step to step it keeps there, under a
    key of its own (itself); it is empty at the start of every run, and no other run sees it.
    """

    names: tuple[str, ...]
    process: Process

    @property
    def run(self) -> Run: ...

    @property
    def memory(self) -> dict[Any, Any]: ...

    @property
    def ports(self) -> Collection[str]:
        """Names of the network's ports, where the taps of a `Perturbed` view may act."""

    @property
    def denoiser(self) -> Denoiser:
        """The model's network."""

    def __call__(self, x: Tensor, sigma: float, *views: View | Perturbed) -> list[Tensor]:
        """x0 estimates, one a view: plain ones from one batch, disturbed ones from a call for each network.

        Raises:
            CompositionError: `unknown-port`.
        """

    def decode(self, latents: Tensor) -> Tensor:
        """Pictures of latents through the codec, differentiable."""


class Guidance(Value, ABC):
    """Which views of the conditioning to evaluate, and how their x0 estimates combine."""

    examples: ClassVar[tuple[Example, ...]] = (Example(),)
    api: ClassVar[int]  # both as `Part` has them

    @abstractmethod
    def __call__(self, evaluate: Evaluate, x: Tensor, sigma: float) -> Tensor:
        """The guided x0 estimate."""

    def views(self, names: Sequence[str]) -> int:
        """Different views that one call evaluates at most, for these condition names; `Perturbed` ones included."""
        return 1

    def perturbed(self, names: Sequence[str]) -> int:
        """Those of `views` that are `Perturbed`: they are no rows of the network's batch."""
        return 0

    def weights(self, names: Sequence[str], sigma: float) -> Mapping[View, float] | None:
        """The factor of each view's estimate at a noise level, those that are not 0, for a model with these condition
        names; None: not told, and then nothing is said of what cannot act in a call."""
        return None

    @property
    def differentiates(self) -> bool:
        """Whether it takes gradients through the network."""
        return False

    def plain(self, scale: float) -> Guidance | None:
        """The same rule at one scale for all conditions, without options; None where it has no such form. 1 gives the
        conditional estimate, 0 the unconditional one, and one condition without + scale (conditional - without)."""
        return self.model_copy(update={"scale": scale}) if "scale" in type(self).model_fields else None

    def neutral(self) -> Guidance | None:
        """The same rule, its options kept, at the scale that changes nothing; None where there is no such scale."""
        return self.plain(1.0)
