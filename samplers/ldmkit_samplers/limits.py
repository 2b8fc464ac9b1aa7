"""Limits of the x0 estimate, for pixel-space models, whose values are known to be in a range."""

from __future__ import annotations

from pydantic import Field
from torch import Tensor

from ldmkit import Value


class Limits(Value):
    """Keep x0 within bounds, static or dynamic (Saharia et al. 2022, section 2.3).

    Args:
        bound: x0 is clamped to [-bound, bound].
        quantile: quantile of a sample's |x0|: if it exceeds 1, it is used as the bound, up to `bound`, and x0 is
            divided by it. A `bound` below 1 is always used itself.
    """

    bound: float = Field(default=1.0, gt=0)
    quantile: float | None = Field(default=None, gt=0, le=1)

    def __call__(self, x0: Tensor) -> Tensor:
        """(B, ...) -> the same shape; a new tensor."""
        if self.quantile is None:
            return x0.clamp(-self.bound, self.bound)
        flat = x0.abs().flatten(1).float()
        bound = flat.quantile(self.quantile, dim=1).clamp(min=1).clamp(max=self.bound).to(x0.dtype)
        bound = bound.view(-1, *[1] * (x0.ndim - 1))
        return x0.clamp(-bound, bound) / bound
