"""What a sampler may request from `denoise` besides x0, and how wrappers of `denoise` forward it."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, Protocol, Self, TypeAlias, runtime_checkable

from torch import Tensor

from ldmkit.contracts.step import Denoise
from ldmkit.errors import RunError

Need: TypeAlias = Literal["unconditional", "variance", "gradient"]
"""What a sampler may need besides x0: the optional fields of `Denoised`."""

_WITHOUT: dict[str, tuple[str, str]] = {
    "unconditional": ("no unconditional estimate", "a pipeline, or ldmkit.with_unconditional(denoise, unconditional)"),
    "variance": ("no learned variance", "a network with 2 C output channels, or a fixed variance"),
}


@dataclass(frozen=True, slots=True)
class Denoised:
    """Estimates for a state x = x0 + sigma n. Tensors have the shape of the state.

    Args:
        x0: what `denoise(x, sigma)` returns: guided, and with the known region kept when inpainting.
        unconditional: the x0 estimate without any condition; equal to x0 for a model without conditions.
        variance: log-space interpolation between the posterior variance (beta tilde, at 0) and the variance of the
            forward step (beta, at 1): (v + 1) / 2 for the second C channels v of the network's output (Nichol &
            Dhariwal 2021, equation 15). It is taken from the conditional view; guidance does not change it.
        gradient: that of log p(y | x) with its scale, by the state x, which guidance has left for the sampler to apply
            (`Guidance.split`), so that x0 is without it; None: there is none, or x0 contains it.
    """

    x0: Tensor
    unconditional: Tensor | None = None
    variance: Tensor | None = None
    gradient: Tensor | None = None


@runtime_checkable
class Estimates(Protocol):
    """A `denoise` that can return more than x0."""

    def __call__(self, x: Tensor, sigma: float) -> Tensor: ...

    def estimate(self, x: Tensor, sigma: float, *needs: Need) -> Denoised:
        """x0 and the requested fields, if available; also other fields that come for free."""


@runtime_checkable
class Starts(Protocol):
    """A `denoise` that keeps state between steps."""

    def started(self) -> Self:
        """A copy with fresh state, for one run."""


def started(denoise: Denoise) -> Denoise:
    """`denoise` for one run, with fresh state if it keeps any."""
    return denoise.started() if isinstance(denoise, Starts) else denoise


def estimates(denoise: Denoise, *needs: Need) -> Callable[[Tensor, float], Denoised]:
    """`denoise.estimate` for samplers that require `needs`.

    A plain function provides only x0, which is enough for a sampler without further needs, or one that needs the
    `gradient` of guidance, of which there may be none.

    Raises:
        RunError: `no-estimate`, at the first call, if `denoise` does not provide one of them.
    """

    def estimate(x: Tensor, sigma: float) -> Denoised:
        found = denoise.estimate(x, sigma, *needs) if isinstance(denoise, Estimates) else Denoised(denoise(x, sigma))
        for need in needs:
            if need in _WITHOUT and getattr(found, need) is None:
                what, fits = _WITHOUT[need]
                raise RunError("no-estimate", f"the sampler needs more than x0; `denoise` gives {what}", fits=fits)
        return found

    return estimate


def with_unconditional(denoise: Denoise, unconditional: Denoise | None = None) -> Estimates:
    """A plain function paired with its unconditional counterpart; None for a model without conditions."""
    return _Paired(denoise, unconditional)


class DenoiseWrapper:
    """Base class for wrappers of `denoise`: it forwards `estimate`, and `started` restarts the wrapped function."""

    def __init__(self, denoise: Denoise) -> None:
        self.denoise = denoise

    def __call__(self, x: Tensor, sigma: float) -> Tensor:
        """x0."""
        return self.denoise(x, sigma)

    def estimate(self, x: Tensor, sigma: float, *needs: Need) -> Denoised:
        """The wrapped function's estimates. A wrapper that changes x0 must change it here as well."""
        return estimates(self.denoise, *needs)(x, sigma)

    def started(self) -> Self:
        """A copy that wraps `started(denoise)`."""
        other = copy.copy(self)
        other.denoise = started(self.denoise)
        return other


class _Paired(DenoiseWrapper):
    def __init__(self, denoise: Denoise, unconditional: Denoise | None) -> None:
        super().__init__(denoise)
        self.unconditional = unconditional

    def estimate(self, x: Tensor, sigma: float, *needs: Need) -> Denoised:
        x0 = self.denoise(x, sigma)
        return Denoised(x0, x0 if self.unconditional is None else self.unconditional(x, sigma))
