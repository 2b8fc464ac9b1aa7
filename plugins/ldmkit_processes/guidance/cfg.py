"""No guidance, and classifier-free guidance."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, ClassVar, Literal, TypeAlias

import torch
from pydantic import AfterValidator, Field
from torch import Tensor

from ldmkit import Evaluate, Example, Guidance, SpecError, View
from ldmkit.bounds import Scale
from ldmkit_processes.guidance.spaces import check_droppable, rescaled_in

EVERYTHING: frozenset[str] = frozenset()
"""The view that drops nothing."""


def _ordered(interval: tuple[float, float] | None) -> tuple[float, float] | None:
    if interval is not None and not 0 <= interval[0] < interval[1]:
        raise SpecError("interval", f"{interval} is not an interval", fits="0 <= low < high, in sigma")
    return interval


Interval: TypeAlias = Annotated[tuple[float, float] | None, AfterValidator(_ordered)]
"""Noise levels (low, high] at which guidance acts; None: all."""


def outside(interval: tuple[float, float] | None, sigma: float) -> bool:
    """Whether guidance does not act at a noise level."""
    return interval is not None and not interval[0] < sigma <= interval[1]


class NoGuidance(Guidance):
    """The conditional estimate as it is."""

    def __call__(self, evaluate: Evaluate, x: Tensor, sigma: float) -> Tensor:
        return evaluate(x, sigma, EVERYTHING)[0]

    def weights(self, names: Sequence[str], sigma: float) -> dict[View, float]:
        return {EVERYTHING: 1.0}


class CFG(Guidance):
    """x0 = x0_uncond + scale (x0_cond - x0_uncond) (Ho & Salimans 2022, in the convention where 1 means no guidance).

    The unconditional view replaces every condition by its null (or by the caller's negative one). Scale 1
    evaluates only the conditional view, scale 0 only the unconditional one; otherwise both are one batch. If no
    condition has a null, scales other than 1 are an error.

    Args:
        scale: s; the paper's own w is s - 1.
        interval: guide only where low < sigma <= high (Kynkäänniemi et al. 2024); elsewhere the conditional view.
        rescale: fraction in [0, 1] by which the result's standard deviation is moved to that of the conditional
            estimate (Lin et al. 2023, section 3.4).
        space: space of the rescaling: x0, or the network's output, as in diffusers (v in the paper).
    """

    examples: ClassVar[tuple[Example, ...]] = (
        Example(),
        Example({"scale": 1.0}),
        Example({"scale": 4.0, "interval": (0.5, 2.0)}),
        Example({"scale": 4.0, "rescale": 0.7}),
        Example({"scale": 4.0, "rescale": 0.7, "space": "output"}),
    )
    scale: Scale = 7.5
    interval: Interval = None
    rescale: float = Field(default=0.0, ge=0, le=1)
    space: Literal["x0", "output"] = "x0"

    def __call__(self, evaluate: Evaluate, x: Tensor, sigma: float) -> Tensor:
        """Raises CompositionError: there is no condition with a null, so that a scale other than 1 has no meaning."""
        names = evaluate.names
        check_droppable(self.scale, names)
        if self.scale == 1 or outside(self.interval, sigma):
            return evaluate(x, sigma, EVERYTHING)[0]
        if self.scale == 0:
            return evaluate(x, sigma, frozenset(names))[0]
        without, conditional = evaluate(x, sigma, frozenset(names), EVERYTHING)
        guided = torch.lerp(without, conditional, self.scale)
        if not self.rescale:
            return guided
        return rescaled_in(self.space, evaluate, x, sigma, guided, conditional, self.rescale)

    def weights(self, names: Sequence[str], sigma: float) -> Mapping[View, float]:
        scale = 1.0 if outside(self.interval, sigma) or not names else self.scale
        factors = {frozenset(names): 1 - scale, EVERYTHING: scale}
        return {view: factor for view, factor in factors.items() if factor}

    def plain(self, scale: float) -> CFG:
        return CFG(scale=scale)

    def neutral(self) -> CFG:
        return self.model_copy(update={"scale": 1.0})

    def views(self, names: Sequence[str]) -> int:
        return 1 if self.scale in (0, 1) or not names else 2
