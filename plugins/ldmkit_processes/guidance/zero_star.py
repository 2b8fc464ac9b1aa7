"""CFG-Zero*: guidance with an optimised scale of the unconditional estimate, for flow models."""

from __future__ import annotations

from typing import ClassVar

import torch
from pydantic import Field
from torch import Tensor

from ldmkit import Evaluate, Example
from ldmkit.bounds import MAX_STEPS
from ldmkit_processes.guidance.cfg import EVERYTHING
from ldmkit_processes.guidance.spaces import Space, as_x0, check_droppable
from ldmkit_processes.guidance.timed import TwoViews, dot


class CFGZeroStar(TwoViews):
    """a u + scale (c - a u) with a = <c, u> / |u|^2 a sample, and an output of 0 in the first steps (Fan et al. 2025,
    equations 8 and 9, algorithm 1).

    Args:
        scale: s; 1 means no guidance, and leaves the first steps alone.
        zero_steps: steps at the start of a run whose output is 0: a flow model stays where it is in them.
        space: the paper's is the network's output, a velocity.
        rescale: as of `cfg`, in the same space.
        interval, start, end: when it acts, on the first steps as well.
    """

    examples: ClassVar[tuple[Example, ...]] = (
        Example(),
        Example({"scale": 4.0, "zero_steps": 0, "space": "x0", "rescale": 0.3}),
        Example({"scale": 4.0, "zero_steps": 2, "interval": (0.5, 2.0), "start": 0.1, "end": 0.9}),
    )
    zero_steps: int = Field(default=1, ge=0, le=MAX_STEPS)
    space: Space = "output"

    def __call__(self, evaluate: Evaluate, x: Tensor, sigma: float) -> Tensor:
        """Raises CompositionError: there is no condition with a null, so that a scale other than 1 has no meaning."""
        check_droppable(self.scale, evaluate.names)
        if self.scale == 1 or self.rests(evaluate, sigma) or not self._first(evaluate, sigma):
            return super().__call__(evaluate, x, sigma)
        found = evaluate(x, sigma, EVERYTHING)[0]  # for what else is asked of the step; its estimate is not used
        nothing = torch.zeros_like(found)
        return as_x0(evaluate, x, sigma, nothing) if self.space == "output" else nothing

    def _first(self, evaluate: Evaluate, sigma: float) -> bool:
        steps = max(len(evaluate.run.sigmas) - 1, 1)
        return self.zero_steps > 0 and evaluate.run.progress(sigma) * steps < self.zero_steps - 1e-6

    def combined(self, evaluate: Evaluate, sigma: float, conditional: Tensor, without: Tensor) -> Tensor:
        fitted = without * (dot(conditional, without) / (dot(without, without) + 1e-8))
        return torch.lerp(fitted, conditional, self.scale)

    def plain(self, scale: float) -> None:
        """None: at scale 0 it is a u, which is not the unconditional estimate."""
