"""Whole runs as guided-diffusion's scripts make them, against their published formulas on the process's own scale.

Ancestral steps add variance * gradient to the posterior's mean (Dhariwal & Nichol 2021, algorithm 1), DDIM changes the
noise by it (algorithm 2); x0 is clipped before either, and the noise of DDIM follows the clipped x0.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from ldmkit_processes.discrete import Discrete
from ldmkit_processes.guidance.classifier import ClassifierGuidance
from ldmkit_samplers.ddim import DDIM
from ldmkit_samplers.ddpm import DDPM
from ldmkit_samplers.grids.respaced import Respaced
from tiny_parts import part, unet
from torch import Tensor

import ldmkit

STEPS, SCALE, LABELS = 6, 40.0, (1, 0)
CLIP = {"bound": 1.0}


def judge(z: Tensor, t: Tensor) -> Tensor:
    """Logits of three classes, curved in z and different at every time."""
    weight = torch.linspace(-1, 1, 3 * z[0].numel(), dtype=z.dtype).view(3, -1).sin()
    return torch.tanh(z.flatten(1) @ weight.T / 4) * (1 + t[:, None] / 500)


def slope(z: Tensor, t: float) -> Tensor:
    """scale * grad_z log p(y | z)."""
    free = z.detach().requires_grad_()
    log = judge(free, torch.full((len(z),), t, dtype=z.dtype)).log_softmax(1)
    return SCALE * torch.autograd.grad(sum(log[i, y] for i, y in enumerate(LABELS)), free)[0]


def pipeline(outputs: int) -> ldmkit.Pipeline:
    return ldmkit.Pipeline.of(
        codec=part("codec", "identity", {}),
        denoiser=unet(3, context_dim=None, out_channels=outputs),
        process=Discrete(schedule="linear", beta_start=1e-4, beta_end=0.02),
        defaults={"size": (8, 8)},
    ).to(dtype="float64")


class Spaced:
    """The respaced diffusion: alpha_bar of the visited timesteps, and the betas between them."""

    def __init__(self, times: list[int]) -> None:
        betas = torch.linspace(1e-4, 0.02, 1000, dtype=torch.float64)
        self.times, self.bars = times, (1 - betas).cumprod(0)[times].tolist()
        self.before = [1.0, *self.bars[:-1]]
        self.betas = [1 - a / b for a, b in zip(self.bars, self.before, strict=True)]
        rows = zip(self.betas, self.before, self.bars, strict=True)
        self.variances = [beta * (1 - before) / (1 - bar) for beta, before, bar in rows]

    def clipped(self, i: int, z: Tensor, eps: Tensor) -> Tensor:
        return ((z - math.sqrt(1 - self.bars[i]) * eps) / math.sqrt(self.bars[i])).clamp(-1, 1)

    def ancestral(self, i: int, z: Tensor, out: Tensor, variance: str, guided: bool, noise: Tensor) -> Tensor:
        bar, before, beta = self.bars[i], self.before[i], self.betas[i]
        x0 = self.clipped(i, z, out[:, :3])
        mean = (math.sqrt(before) * beta * x0 + math.sqrt(1 - beta) * (1 - before) * z) / (1 - bar)
        least = self.variances[i] if i else self.variances[1]
        if variance == "learned":
            share = (out[:, 3:] + 1) / 2
            spread = torch.exp(share * math.log(beta) + (1 - share) * math.log(least))
        else:
            small = self.variances[i] if variance == "small" else beta if i else least
            spread = torch.tensor(small, dtype=torch.float64)
        mean = mean + spread * slope(z, self.times[i]) if guided else mean
        return mean + spread.sqrt() * noise if i else mean

    def implicit(self, i: int, z: Tensor, out: Tensor, eta: float, guided: bool, noise: Tensor) -> Tensor:
        bar, before = self.bars[i], self.before[i]
        x0 = self.clipped(i, z, out[:, :3])
        eps = (z - math.sqrt(bar) * x0) / math.sqrt(1 - bar)
        eps = eps - math.sqrt(1 - bar) * slope(z, self.times[i]) if guided else eps
        x0 = (z - math.sqrt(1 - bar) * eps) / math.sqrt(bar)
        sigma = eta * math.sqrt((1 - before) / (1 - bar)) * math.sqrt(1 - bar / before)
        return math.sqrt(before) * x0 + math.sqrt(1 - before - sigma**2) * eps + (sigma * noise if i else 0)


def run(pipe: ldmkit.Pipeline, sampler: Any, guided: bool, own: Callable[..., Tensor], grid: Respaced) -> float:
    """The largest difference from the formulas, relative to the largest value."""
    guidance = ClassifierGuidance(classifier=judge, labels=LABELS, scale=SCALE) if guided else "none"
    prepared = pipe.prepare([{}, {}], seeds=[0, 1], sampler=sampler, grid=grid, steps=STEPS, guidance=guidance)
    draws = torch.Generator().manual_seed(5)
    noises = [torch.randn(2, 3, 8, 8, generator=draws, dtype=torch.float64) for _ in range(STEPS)]
    object.__setattr__(prepared, "noise", lambda index: noises[index])
    object.__setattr__(prepared, "x", prepared.x.double())
    *_, last = prepared.steps()
    net, context = pipe.denoiser, prepared.evaluate.context((frozenset(),))
    z = prepared.x * prepared.evaluate.process.alpha(prepared.sigmas[0])
    for index, i in enumerate(reversed(range(STEPS))):
        with torch.no_grad():
            out = net(z, torch.full((2,), float(times(grid)[i])), context)
        z = own(i, z, out, guided, noises[index])
    return float((last.x - z).abs().max() / z.abs().max())


def times(grid: Respaced) -> list[int]:
    return [int(t) for t in reversed(grid.timesteps(1000, STEPS))]


@pytest.mark.parametrize("guided", [False, True])
@pytest.mark.parametrize("variance", ["learned", "large", "small"])
def test_ancestral(variance: Any, guided: bool) -> None:
    """1e-10 of the largest value in float64; 2e-14 was seen."""
    grid = Respaced()
    spaced = Spaced(times(grid))
    sampler = DDPM(variance=variance, gradient="mean", limits=CLIP)  # type: ignore[arg-type]
    own = lambda i, z, out, guided, noise: spaced.ancestral(i, z, out, variance, guided, noise)  # noqa: E731
    assert run(pipeline(6 if variance == "learned" else 3), sampler, guided, own, grid) < 1e-10


@pytest.mark.parametrize("guided", [False, True])
@pytest.mark.parametrize("eta", [0.0, 0.7])
def test_implicit(eta: float, guided: bool) -> None:
    """The learned half of the channels is not read; tolerance as above; 1e-14 was seen."""
    grid = Respaced(rule="ddim")
    spaced = Spaced(times(grid))
    sampler = DDIM(eta=eta, noise="limited", limits=CLIP)  # type: ignore[arg-type]
    own = lambda i, z, out, guided, noise: spaced.implicit(i, z, out, eta, guided, noise)  # noqa: E731
    assert run(pipeline(6), sampler, guided, own, grid) < 1e-10


def test_the_ways_differ() -> None:
    """Clipping acts, and the gradient at the mean is not that at the estimate: the tests above could fail."""
    pipe = pipeline(6)
    guidance = ClassifierGuidance(classifier=judge, labels=LABELS, scale=SCALE)
    call = {"seeds": [0, 1], "grid": Respaced(), "steps": STEPS, "guidance": guidance}
    samplers = [
        DDPM(variance="learned", gradient=way, limits=limits)  # type: ignore[arg-type]
        for way in ("mean", "estimate")
        for limits in (None, CLIP)
    ]
    images = [pipe([{}, {}], sampler=sampler, **call).latents for sampler in samplers]
    for i, image in enumerate(images):
        assert all((image - other).abs().max() > 1e-3 for other in images[:i])


def test_a_mask_keeps_its_region() -> None:
    """The gradient does not act where the picture is kept."""
    pipe = pipeline(6)
    picture, mask = torch.zeros(3, 8, 8), torch.zeros(1, 8, 8)
    mask[:, 4:] = 1
    start = ldmkit.Start(image=picture, mask=mask, strength=1.0)
    guidance = ClassifierGuidance(classifier=judge, labels=(1,), scale=SCALE)
    for sampler in (DDPM(variance="learned", gradient="mean"), DDIM(noise="limited")):
        prepared = pipe.prepare({}, start=start, sampler=sampler, grid=Respaced(), steps=4, guidance=guidance)
        *_, step = prepared.steps()
        assert torch.allclose(step.x[..., :4, :], torch.zeros(3, 4, 8).to(step.x), atol=1e-6)
        assert step.x[..., 4:, :].abs().max() > 0.1
