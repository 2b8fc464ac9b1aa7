"""A blend of two estimates."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from pydantic import Field
from torch import Tensor

import ldmkit


class Blend(ldmkit.Guidance):
    """x0 = without + scale (with - without), all conditions dropped together.

    Args:
        scale: 1 is the model as it is, 0 leaves every condition out.
    """

    api: ClassVar[int] = 1
    scale: float = Field(default=3.0, ge=0)

    def __call__(self, evaluate: ldmkit.Evaluate, x: Tensor, sigma: float) -> Tensor:
        everything: ldmkit.View = frozenset()
        nothing: ldmkit.View = frozenset(evaluate.names)
        if self.scale == 1:
            return evaluate(x, sigma, everything)[0]
        if not nothing:
            raise ldmkit.CompositionError("no-null", "no condition can be left out", where="guidance", fits="scale 1")
        if self.scale == 0:
            return evaluate(x, sigma, nothing)[0]
        without, given = evaluate(x, sigma, nothing, everything)
        return without + self.scale * (given - without)

    def views(self, names: Sequence[str]) -> int:
        return 1 if self.scale in (0, 1) or not names else 2
