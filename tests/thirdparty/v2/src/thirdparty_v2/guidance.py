"""A guidance with perturbed views, memory, a space and an interval."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar, Literal

from pydantic import Field
from torch import Tensor

import ldmkit

EVERYTHING: ldmkit.View = frozenset()


def halved(value: Tensor, frame: ldmkit.Frame) -> Tensor:
    """A tap that weakens what a port carries."""
    return value / 2


class Pushed(ldmkit.Guidance):
    """c + (scale - 1) D, D = c - u + weaker (c - w) + momentum times the step before's D.

    u is the unconditional estimate, w that of a network whose first port (by name) carries half.

    Args:
        scale: 1 is the conditional estimate.
        weaker: share of the direction away from the weakened network.
        momentum: share of the last D.
        space: where differences are taken: estimates of x0, or outputs of the network.
        start, end: fractions of the steps between which it acts.
    """

    api: ClassVar[int] = 1
    examples: ClassVar[tuple[ldmkit.Example, ...]] = (
        ldmkit.Example({"scale": 2.0, "weaker": 0.0, "momentum": 0.0}),
        ldmkit.Example({"scale": 2.0, "momentum": 0.0}),
        ldmkit.Example({"scale": 2.0, "space": "output", "start": 0.2, "end": 0.9}),
    )
    scale: float = Field(default=1.5, ge=0, le=100)
    weaker: float = Field(default=0.5, ge=0, le=10)
    momentum: float = Field(default=-0.25, gt=-1, lt=1)
    space: Literal["x0", "output"] = "x0"
    start: float = Field(default=0.0, ge=0, le=1)
    end: float = Field(default=1.0, ge=0, le=1)

    def __call__(self, evaluate: ldmkit.Evaluate, x: Tensor, sigma: float) -> Tensor:
        if self.scale == 1 or not self.start <= evaluate.run.progress(sigma) <= self.end:
            return evaluate(x, sigma, EVERYTHING)[0]
        views: list[ldmkit.View | ldmkit.Perturbed] = [EVERYTHING, frozenset(evaluate.names)]
        if self.weaker:
            views.append(ldmkit.Perturbed(taps=tuple((port, halved) for port in sorted(evaluate.ports)[:1])))
        skip, out, _ = evaluate.process.scalings(sigma)  # x0 = skip x + out F
        found = evaluate(x, sigma, *views)
        if self.space == "output":
            found = [(x0 - skip * x) / out for x0 in found]
        given, without, *weak = found
        change = given - without + sum(self.weaker * (given - one) for one in weak)
        if self.momentum:
            before = evaluate.memory.get(self)
            change = change if before is None else change + self.momentum * before
            evaluate.memory[self] = change.detach()
        guided = given + (self.scale - 1) * change
        return skip * x + out * guided if self.space == "output" else guided

    def views(self, names: Sequence[str]) -> int:
        return 1 if self.scale == 1 else 1 + bool(names) + self.perturbed(names)

    def perturbed(self, names: Sequence[str]) -> int:
        return int(self.scale != 1 and self.weaker > 0)

    def weights(self, names: Sequence[str], sigma: float) -> Mapping[ldmkit.View, float] | None:
        return {EVERYTHING: 1.0} if self.scale == 1 else None

    def plain(self, scale: float) -> ldmkit.Guidance | None:
        return self.model_copy(update={"scale": scale, "weaker": 0.0, "momentum": 0.0, "start": 0.0, "end": 1.0})
