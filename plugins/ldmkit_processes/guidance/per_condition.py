"""One guidance scale for each condition, in one batched evaluation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any, ClassVar, Literal

import torch
from pydantic import field_serializer, field_validator
from torch import Tensor

from ldmkit import CompositionError, Evaluate, Example, Guidance, View, suggest
from ldmkit.bounds import Scale
from ldmkit_processes.guidance.cfg import EVERYTHING, Interval, outside


class PerCondition(Guidance):
    """A scale s_i for each named condition c_1 ... c_n.

    "chained" (Brooks et al. 2023, InstructPix2Pix, equation 3), in the order of the scales:
    x0 = x0() + sum_i s_i (x0(c_1 ... c_i) - x0(c_1 ... c_{i-1})). Equal scales are plain
    CFG, all ones the conditional model.

    "independent" (Liu et al. 2022, composable diffusion, equation 11): x0 = x0() + sum_i s_i (x0(c_i) - x0()),
    where each view drops all conditions but one.

    With a single condition both are CFG. Conditions without a scale stay in every view.

    Args:
        scales: name of a condition -> scale.
        interval: guide only where low < sigma <= high, as `CFG` does; elsewhere the conditional view.
    """

    examples: ClassVar[tuple[Example, ...]] = (
        Example({"scales": {"text": 3.0}}, ("text",)),
        Example({"scales": {"image": 1.5, "text": 7.0}}, ("image", "text")),
        Example({"scales": {"text": 3.0}, "composition": "independent"}, ("text",)),
        Example({"scales": {"image": 1.5, "text": 7.0}, "composition": "independent"}, ("image", "text")),
        Example({"scales": {"image": 1.5, "text": 7.0}, "interval": (0.5, 2.0)}, ("image", "text")),
    )
    scales: tuple[tuple[str, Scale], ...]
    composition: Literal["chained", "independent"] = "chained"
    interval: Interval = None

    @field_validator("scales", mode="before")
    @classmethod
    def _pairs(cls, scales: Any) -> Any:
        return tuple(scales.items()) if isinstance(scales, Mapping) else scales

    @field_validator("scales")
    @classmethod
    def _once(cls, scales: tuple[tuple[str, float], ...]) -> tuple[tuple[str, float], ...]:
        if len(dict(scales)) != len(scales):
            raise ValueError("a condition has two scales")
        return scales

    @field_serializer("scales")
    def _mapping(self, scales: tuple[tuple[str, float], ...]) -> dict[str, float]:
        return dict(scales)

    def __call__(self, evaluate: Evaluate, x: Tensor, sigma: float) -> Tensor:
        """Raises CompositionError: a scale for a condition that the pipeline does not have."""
        for name, _ in self.scales:
            if name not in evaluate.names:
                what = f"there is no condition {name!r} to scale"
                raise CompositionError("unknown-condition", what, fits=suggest(name, evaluate.names))
        if outside(self.interval, sigma):
            return evaluate(x, sigma, EVERYTHING)[0]
        weights = self._weights()
        estimates = evaluate(x, sigma, *weights)
        factors = list(weights.values())
        if len(estimates) == 1:
            return estimates[0]
        if len(estimates) == 2:
            return torch.lerp(estimates[0], estimates[1], factors[1])
        guided = estimates[0] * factors[0]
        for estimate, factor in zip(estimates[1:], factors[1:], strict=True):
            guided.add_(estimate, alpha=factor)
        return guided

    def neutral(self) -> PerCondition | None:
        """The chained form with scales of 1; the independent form has a neutral scale only for a single condition."""
        if self.composition == "independent" and len(self.scales) > 1:
            return None
        return self.model_copy(update={"scales": tuple((name, 1.0) for name, _ in self.scales)})

    def plain(self, scale: float) -> PerCondition | None:
        """One scale for all; None for several independent ones, whose sum is not the conditional estimate at 1."""
        if self.composition == "independent" and len(self.scales) > 1:
            return None
        scales = tuple((name, scale) for name, _ in self.scales)
        return self.model_copy(update={"scales": scales, "interval": None})

    def views(self, names: Sequence[str]) -> int:
        given = frozenset(names)
        return len({view & given for view in self._weights()})

    def weights(self, names: Sequence[str], sigma: float) -> dict[View, float]:
        return {EVERYTHING: 1.0} if outside(self.interval, sigma) else self._weights()

    def _weights(self) -> dict[View, float]:
        """View -> its nonzero factor; the factors add up to 1."""
        names = [name for name, _ in self.scales]
        scales = [scale for _, scale in self.scales]
        if self.composition == "chained":
            chain = [1.0, *scales, 0.0]
            weights = {frozenset(names[i:]): a - b for i, (a, b) in enumerate(pairwise(chain))}
        else:
            weights = {frozenset(names): 1 - sum(scales)}
            for name, scale in self.scales:
                alone = frozenset(names) - {name}
                weights[alone] = weights.get(alone, 0.0) + scale
        return {view: factor for view, factor in weights.items() if factor} or {EVERYTHING: 1.0}
