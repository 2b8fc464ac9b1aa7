"""The contract of guidance: what it may ask the model for, and what it answers."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Protocol, TypeAlias

from torch import Tensor

from ldmkit.contracts.example import Example
from ldmkit.contracts.value import Value

if TYPE_CHECKING:
    from ldmkit.contracts.process import Process
    from ldmkit.contracts.step import Run

View: TypeAlias = frozenset[str]
"""A view of the conditioning: the names of the inputs that are dropped (replaced by their nulls)."""


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

    def __call__(self, x: Tensor, sigma: float, *views: View) -> list[Tensor]:
        """x0 estimates, one a view, from one batch."""

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
        """Rows of the network's batch per sample at most, for these condition names."""
        return 1

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
