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
    """A generator of steps over `denoise`. Stateless; run-time state lives in the generator."""

    examples: ClassVar[tuple[Example, ...]] = (Example(),)
    api: ClassVar[int]  # both as `Part` has them
    if TYPE_CHECKING:  # type checkers then accept both a class attribute and a property as an override

        @property
        def order(self) -> int | None: ...

        @property
        def needs(self) -> frozenset[Need]: ...
    else:
        order: ClassVar[int | None] = None
        """Order of convergence; None for a sampler that draws noise. May be a property if it depends on fields."""
        needs: ClassVar[frozenset[Need]] = frozenset()
        """What it requests besides x0, through `ldmkit.estimates`. May be a property if it depends on fields."""
    estimate: ClassVar[Literal["mean", "end", "distilled"]] = "mean"
    """What `denoise` must return: "mean", the posterior mean E[x0 | x]; "end", the end point at sigma 0 of the ODE
    trajectory through x (consistency models); "distilled", the output of a model trained for this very sampler, so
    that no exact solution is known to test against."""

    max_guidance: ClassVar[float | None] = None
    """Largest guidance scale that the sampler is made for; None: any. A run with a larger one gets a warning."""

    @abstractmethod
    def steps(
        self, denoise: Denoise, x: Tensor, sigmas: Sequence[float], noise: Callable[[int], Tensor]
    ) -> Iterator[Step]:
        """One `Step` for each of the len(sigmas) - 1 transitions. `noise(i)` is unit normal of x's shape.

        Each index i >= 0 may be drawn at most once per run. A sampler that draws once per step uses the step's index i,
        one that draws k times uses k i ... k i + k - 1. The indices are reserved for the sampler; nothing else in a run
        draws from them. x must not be modified; the last sigma may be 0. Do not `yield` inside `torch.no_grad()`.
        """

    def evaluations(self, steps: int) -> int:
        """Number of `denoise` calls in a run of `steps` transitions that ends at sigma 0."""
        return steps

    def arriving(self, arrivals: Arrivals) -> Sampler:
        """This sampler with steps that end where `arrivals` says. The default returns the sampler unchanged, so its
        steps end at the next level."""
        return self
