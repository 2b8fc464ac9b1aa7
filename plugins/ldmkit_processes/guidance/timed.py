"""Base classes for rules beyond plain CFG: when guidance acts, and in which space estimates are combined."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

from pydantic import Field
from torch import Tensor

from ldmkit import Evaluate, Guidance
from ldmkit.bounds import Scale
from ldmkit_processes.guidance.cfg import EVERYTHING, Interval, outside
from ldmkit_processes.guidance.spaces import Space, as_output, as_x0, check_droppable, rescaled


class Timed(Guidance, ABC):
    """Guidance in part of a run; elsewhere it returns the conditional estimate.

    Args:
        interval: it acts where low < sigma <= high.
        start, end: and only in this part of the run, in fractions of its steps.
    """

    interval: Interval = None
    start: float = Field(default=0.0, ge=0, le=1)
    end: float = Field(default=1.0, ge=0, le=1)

    def rests(self, evaluate: Evaluate, sigma: float) -> bool:
        """Whether guidance does not act at a noise level."""
        if outside(self.interval, sigma):
            return True
        if self.start == 0 and self.end == 1:
            return False
        done = evaluate.run.progress(sigma)
        after = done + 1 / max(len(evaluate.run.sigmas) - 1, 1)
        return done < self.start - 1e-9 or after > self.end + 1e-9


class TwoViews(Timed, ABC):
    """A rule that combines the conditional and the unconditional estimate, not necessarily linearly.

    Args:
        scale: s; 1 means no guidance.
        space: the space in which they are combined.
        rescale: fraction in [0, 1] by which the result's standard deviation is moved to that of the conditional
            estimate, in the same space (Lin et al. 2023, section 3.4).
    """

    scale: Scale = 7.5
    space: Space = "x0"
    rescale: float = Field(default=0.0, ge=0, le=1)

    def __call__(self, evaluate: Evaluate, x: Tensor, sigma: float) -> Tensor:
        """Raises CompositionError: there is no condition with a null, so that a scale other than 1 has no meaning."""
        check_droppable(self.scale, evaluate.names)
        if self.scale == 1 or self.rests(evaluate, sigma):
            return evaluate(x, sigma, EVERYTHING)[0]
        without, conditional = evaluate(x, sigma, frozenset(evaluate.names), EVERYTHING)
        if self.space == "output":
            without, conditional = (as_output(evaluate, x, sigma, view) for view in (without, conditional))
        guided = self.combined(evaluate, sigma, conditional, without)
        if self.rescale:
            guided = rescaled(guided, conditional, self.rescale)
        return as_x0(evaluate, x, sigma, guided) if self.space == "output" else guided

    @abstractmethod
    def combined(self, evaluate: Evaluate, sigma: float, conditional: Tensor, without: Tensor) -> Tensor:
        """The guided estimate, of two in the rule's space; the scale is not 1."""

    def views(self, names: Sequence[str]) -> int:
        return 1 if self.scale == 1 or not names else 2

    def neutral(self) -> Guidance:
        return self.model_copy(update={"scale": 1.0})


def dot(one: Tensor, other: Tensor) -> Tensor:
    """Inner products per sample, (B, 1, ...), over all axes but the first."""
    return (one * other).sum(tuple(range(1, one.ndim)), keepdim=True)
