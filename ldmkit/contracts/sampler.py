"""The contract of samplers: generators of steps over `denoise`."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, ClassVar, Literal

from torch import Tensor

from ldmkit.contracts.denoised import Need
from ldmkit.contracts.example import Example
from ldmkit.contracts.step import Arrivals, Denoise, Step
from ldmkit.contracts.value import Value


class Sampler(Value, ABC):
    """A generator of steps over `denoise`. Stateless: run-time state lives in the generator."""

    examples: ClassVar[tuple[Example, ...]] = (Example(),)
    api: ClassVar[int]  # both as `Part` has them
    if TYPE_CHECKING:  # for them a class attribute may take a property's place, and a property too

        @property
        def order(self) -> int | None: ...

        @property
        def needs(self) -> frozenset[Need]: ...
    else:
        order: ClassVar[int | None] = None
        """Order of convergence; None for a sampler that draws noise. A property where the fields decide (eta = 0)."""
        needs: ClassVar[frozenset[Need]] = frozenset()
        """What it asks of `denoise` beside x0, through `ldmkit.estimates`. A property where the fields decide."""
    estimate: ClassVar[Literal["mean", "end", "distilled"]] = "mean"
    """What `denoise` must return: the posterior mean E[x0 | x]; "end", the point at sigma 0 of the path through x, as
    consistency models do; "distilled", what only a model trained for this sampler does, so that no law is known."""

    max_guidance: ClassVar[float | None] = None
    """Largest guidance scale that the sampler is made for; None: any. A run with a larger one gets a warning."""

    @abstractmethod
    def steps(
        self, denoise: Denoise, x: Tensor, sigmas: Sequence[float], noise: Callable[[int], Tensor]
    ) -> Iterator[Step]:
        """One `Step` for each of the len(sigmas) - 1 transitions. `noise(i)` is unit normal of x's shape.

        An index i >= 0 is drawn at most once a run. A sampler that draws once a step takes the step's index, one that
        draws k times takes k i ... k i + k - 1. All indices are the sampler's: nothing else of a run draws from them.
        x is never written to; the last sigma may be 0. No `torch.no_grad()` around a `yield`.
        """

    def evaluations(self, steps: int) -> int:
        """How often `denoise` is called in a run of `steps` transitions that ends at sigma 0."""
        return steps

    def arriving(self, arrivals: Arrivals) -> Sampler:
        """This sampler with its steps going where `arrivals` says; itself where it goes from level to level anyway."""
        return self
