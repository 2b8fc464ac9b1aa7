"""A run that is ready to start."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from torch import Tensor

from ldmkit.contracts import Step
from ldmkit.guided import Evaluator
from ldmkit.noise import Noise
from ldmkit.request import Request
from ldmkit.sizes import Size


@dataclass(frozen=True)
class Prepared:
    """A run that is ready to start: everything a sampler is given, and what it takes to finish."""

    request: Request
    size: Size
    sigmas: tuple[float, ...]
    x: Tensor
    denoise: Callable[[Tensor, float], Tensor]
    noise: Noise
    evaluate: Evaluator
    original: Tensor | None = None
    mask: Tensor | None = None

    def steps(self) -> Iterator[Step]:
        """The sampler's steps."""
        return self.request.sampler.steps(self.denoise, self.x, self.sigmas, self.noise)

    @property
    def evaluations(self) -> int:
        """How many times the network will be called."""
        return self.request.sampler.evaluations(len(self.sigmas) - 1)

    @property
    def rows(self) -> int:
        """Batch of the network at most: pictures times the views that guidance asks for."""
        given = [name for name in self.evaluate.names if name not in self.evaluate.absent]
        return self.request.batch * self.request.guidance.views(given)
