"""What a sampler may ask of `denoise` beyond x0, and how functions around `denoise` pass it on."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, Protocol, Self, TypeAlias, runtime_checkable

from torch import Tensor

from ldmkit.contracts.step import Denoise
from ldmkit.errors import RunError

Need: TypeAlias = Literal["unconditional", "variance"]
"""What a sampler may need beside x0; the names of `Denoised`'s optional fields."""

_WITHOUT: dict[Need, tuple[str, str]] = {
    "unconditional": ("no unconditional estimate", "a pipeline, or ldmkit.with_unconditional(denoise, unconditional)"),
    "variance": ("no learned variance", "a network with 2 C output channels, or a variance that is not learned"),
}


@dataclass(frozen=True, slots=True)
class Denoised:
    """What is known of a state x = x0 + sigma n beside the x0 estimate. Tensors have the shape of the state.

    Args:
        x0: what `denoise(x, sigma)` returns: guided, with what is known kept.
        unconditional: x0 without any condition; that of a model without conditions is x0.
        variance: share of the learned variance, 0 where it is the posterior's (beta tilde), 1 where it is the forward
            step's (beta), in the logarithm between: (v + 1) / 2 of the second C channels of a network's output (Nichol
            & Dhariwal 2021, equation 15). It is that of the conditional view: guidance does not act on it.
    """

    x0: Tensor
    unconditional: Tensor | None = None
    variance: Tensor | None = None


@runtime_checkable
class Estimates(Protocol):
    """A `denoise` that gives more than x0."""

    def __call__(self, x: Tensor, sigma: float) -> Tensor: ...

    def estimate(self, x: Tensor, sigma: float, *needs: Need) -> Denoised:
        """x0, and what is asked for where it can be had; further fields where they cost nothing."""


@runtime_checkable
class Starts(Protocol):
    """A `denoise` that remembers something from step to step."""

    def started(self) -> Self:
        """Itself with a memory of its own, for one run."""


def started(denoise: Denoise) -> Denoise:
    """`denoise` for one run: what it remembers is not shared with other runs."""
    return denoise.started() if isinstance(denoise, Starts) else denoise


def estimates(denoise: Denoise, *needs: Need) -> Callable[[Tensor, float], Denoised]:
    """`denoise.estimate` for samplers that cannot do without `needs`.

    Of a plain function only x0 is known; it serves a sampler that needs no more.

    Raises:
        RunError: `no-estimate`, at the first call: `denoise` does not give one of them.
    """

    def estimate(x: Tensor, sigma: float) -> Denoised:
        found = denoise.estimate(x, sigma, *needs) if isinstance(denoise, Estimates) else Denoised(denoise(x, sigma))
        for need in needs:
            if getattr(found, need) is None:
                what, fits = _WITHOUT[need]
                raise RunError("no-estimate", f"the sampler needs more than x0: `denoise` gives {what}", fits=fits)
        return found

    return estimate


def with_unconditional(denoise: Denoise, unconditional: Denoise | None = None) -> Estimates:
    """A plain function with the estimate that it gives without conditions; None: it has no conditions, so its own."""
    return _Paired(denoise, unconditional)


class DenoiseWrapper:
    """Base of what is put around `denoise`: it passes on what lies beyond x0, and starts what it holds anew."""

    def __init__(self, denoise: Denoise) -> None:
        self.denoise = denoise

    def __call__(self, x: Tensor, sigma: float) -> Tensor:
        """x0."""
        return self.denoise(x, sigma)

    def estimate(self, x: Tensor, sigma: float, *needs: Need) -> Denoised:
        """What `denoise` gives; a wrapper that changes x0 changes it here as well."""
        return estimates(self.denoise, *needs)(x, sigma)

    def started(self) -> Self:
        """A copy around what `denoise` is for one run."""
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
