"""Adaptive projected guidance."""

from __future__ import annotations

from typing import ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor

from ldmkit import Evaluate, Example, Guidance
from ldmkit.bounds import MAX_SCALE
from ldmkit_processes.guidance.timed import TwoViews, dot

TINY = 1e-12
"""Keeps a division by the norm of an all-zero estimate finite."""


class APG(TwoViews):
    """conditional + (scale - 1) D, D = D_orthogonal + eta D_parallel to the conditional estimate (Sadat et al. 2024,
    algorithm 1): high scales without the saturation that the parallel part causes.

    D is the difference of the estimates: first `momentum` times the previous step's D is added, then it is scaled down
        to
    a norm of at most `threshold`. Norms and projections are per sample.

    Args:
        scale: s; 1 means no guidance.
        eta: fraction of the parallel part; 1 keeps all of it.
        momentum: beta; a negative value pushes away from the last step's direction. Kept for the length of a run.
        threshold: r, in units of the estimates and proportional to the square root of their size: 15 is for SDXL; 0:
            none.
        anchor: the estimate that (scale - 1) D is added to; "unconditional" adds scale D to that one, as diffusers
            does.
        space: the paper's is x0; diffusers takes the network's output.
        rescale: as of `cfg`, in the same space.
        interval, start, end: when it acts.
    """

    examples: ClassVar[tuple[Example, ...]] = (
        Example(),
        Example({"scale": 4.0, "eta": 0.5, "momentum": 0.0, "threshold": 0.0, "rescale": 0.5}),
        Example({"scale": 4.0, "momentum": -0.75, "space": "output", "anchor": "unconditional", "threshold": 2.0}),
        Example({"scale": 4.0, "interval": (0.5, 2.0), "start": 0.1, "end": 0.9}),
    )
    eta: float = Field(default=0.0, ge=0, le=MAX_SCALE)
    momentum: float = Field(default=-0.5, gt=-1, lt=1)
    threshold: float = Field(default=15.0, ge=0, le=MAX_SCALE)
    anchor: Literal["conditional", "unconditional"] = "conditional"

    def combined(self, evaluate: Evaluate, sigma: float, conditional: Tensor, without: Tensor) -> Tensor:
        change = conditional - without
        if self.momentum:
            before = evaluate.memory.get(self)
            change = change if before is None else change + self.momentum * before
            evaluate.memory[self] = change.detach()
        if self.threshold:
            change = change * (self.threshold / dot(change, change).sqrt().clamp(min=TINY)).clamp(max=1)
        parallel = dot(change, conditional) / dot(conditional, conditional).clamp(min=TINY) * conditional
        update = (
            torch.lerp(change - parallel, change, self.eta) if self.eta <= 1 else change + (self.eta - 1) * parallel
        )
        if self.anchor == "unconditional":
            return without + self.scale * update
        return conditional + (self.scale - 1) * update

    def plain(self, scale: float) -> Guidance | None:
        fixed = {"eta": 1.0, "momentum": 0.0, "threshold": 0.0, "anchor": "conditional", "rescale": 0.0}
        timed = {"interval": None, "start": 0.0, "end": 1.0}
        return self.model_copy(update={"scale": scale, **fixed, **timed})
