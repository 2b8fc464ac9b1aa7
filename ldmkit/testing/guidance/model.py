"""What guidance is checked with: an artificial model, its noise levels and states."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ldmkit.contracts.denoiser import Denoiser
from ldmkit.contracts.guidance import Guidance, Perturbed, View
from ldmkit.contracts.process import Process
from ldmkit.contracts.step import Run
from ldmkit.testing.checks import NotApplicable
from ldmkit.testing.reference import Reference

SHAPE = (3, 8, 8)
"""Shape of one latent, and of one picture, since the codec of the checks is the identity."""
PROCESS = Reference(prediction="eps")
NOTHING: View = frozenset()


@dataclass(frozen=True)
class Subject:
    """Guidance to be checked, and the names of the conditions that it is for; () if it works with any."""

    guidance: Guidance
    names: tuple[str, ...] = ()

    @property
    def conditions(self) -> tuple[str, ...]:
        """Conditions of the model that it is checked with."""
        return self.names or ("text", "layout")


class Model:
    """`evaluate` of an artificial model, for one run: each condition that is kept shifts the estimate differently.

    It records the views of every call, the grad mode, and each tensor that it returned with a copy.
    """

    process: Process = PROCESS

    def __init__(self, names: Sequence[str]):
        self.names = tuple(names)
        self.calls: list[tuple[View | Perturbed, ...]] = []
        self.states: list[Tensor] = []
        self.differentiated = False
        self.decoded = False
        self.given: list[tuple[Tensor, Tensor]] = []
        self.run = Run(tuple(levels()[::-1]), SHAPE[1:])
        self.memory: dict[Any, Any] = {}

    @property
    def ports(self) -> tuple[str, ...]:
        """Self-attentions in the middle and on the way up, and the linear layers in them."""
        layers = ("self_attn.to_q", "self_attn.to_out", "cross_attn.to_out", "ff.out")
        return tuple(
            name
            for path in ("mid.attn.blocks.0", "up.0.attn.1.blocks.0")
            for name in (f"attn.{path}", *(f"linear.{path}.{layer}" for layer in layers))
        )

    @property
    def denoiser(self) -> Denoiser:
        """Not available: there is no network."""
        raise NotApplicable("it uses the network itself, which the kit's artificial model does not have")

    def __call__(self, x: Tensor, sigma: float, *views: View | Perturbed) -> list[Tensor]:
        self.calls.append(views)
        self.states.append(x)
        self.differentiated |= torch.is_grad_enabled() and x.requires_grad
        found = [self._seen(x, sigma, view) for view in views]
        if x.device.type != "meta":
            self.given += [(tensor, tensor.detach().clone()) for tensor in found]
        return found

    def _seen(self, x: Tensor, sigma: float, view: View | Perturbed) -> Tensor:
        if not isinstance(view, Perturbed):
            return self.estimate(x, sigma, view)
        return self.disturbed(self.estimate(x, sigma, view.drop), len(view.taps) + (view.denoiser is not None))

    def disturbed(self, x0: Tensor, places: int) -> Tensor:
        """The estimate of a view when the network is perturbed in this many places."""
        return x0 + 0.1 * places * torch.cos(x0)

    def estimate(self, x: Tensor, sigma: float, view: View) -> Tensor:
        """x0 of one view: a smooth function of the state, shifted and distorted by the conditions that are kept."""
        kept = [i + 1 for i, name in enumerate(self.names) if name not in view]
        shrunk = x / (1 + sigma * sigma)
        return shrunk + 0.3 * torch.sin(shrunk * (1 + sum(kept))) + 0.2 * math.prod(kept or [0])

    def decode(self, latents: Tensor) -> Tensor:
        """The identity codec."""
        self.decoded = True
        return latents


def levels() -> list[float]:
    """Noise levels over the whole process, dense enough to fall into every interval."""
    low, high = math.log(PROCESS.sigma_min), math.log(PROCESS.sigma_max)
    return [math.exp(low + (high - low) * i / 30) for i in range(31)]


def state(sigma: float, rows: int = 2, dtype: torch.dtype = torch.float64, shape: tuple[int, ...] = SHAPE) -> Tensor:
    generator = torch.Generator().manual_seed(7)
    return torch.randn((rows, *shape), generator=generator).to(dtype) * math.hypot(1, sigma)


def ask(guidance: Guidance, model: Model, x: Tensor, sigma: float) -> Tensor:
    """Call guidance as a run does: without gradients."""
    with torch.no_grad():
        return guidance(model, x, sigma)
