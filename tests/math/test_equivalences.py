"""Laws that hold exactly, or in distribution, whatever the network."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import pairwise

import torch
from ldmkit_processes.discrete import Discrete
from ldmkit_processes.flow import Flow
from ldmkit_samplers.ddim import DDIM
from ldmkit_samplers.ddpm import DDPM
from ldmkit_samplers.euler import Euler
from ldmkit_samplers.euler_ancestral import EulerAncestral
from ldmkit_samplers.grids.sigmas import FlowShift, Karras
from ldmkit_samplers.grids.timesteps import Leading
from torch import Tensor

from ldmkit.contracts.sampler import Sampler
from ldmkit.testing.sampler.mixture import Mixture

PROCESS = Discrete()
MIXTURE = Mixture.random()


def unit(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def counted_noise(shape: Sequence[int]) -> Callable[[int], Tensor]:
    return lambda index: unit(*shape, seed=1000 + index)


def final(sampler: Sampler, x: Tensor, sigmas: list[float], mixture: Mixture = MIXTURE) -> Tensor:
    return list(sampler.steps(mixture.denoise, x, sigmas, counted_noise(x.shape)))[-1].x


def test_euler_is_ddim_without_noise() -> None:
    x, sigmas = unit(8, 4) * PROCESS.sigma_max, Karras().sigmas(PROCESS, 17)
    assert torch.equal(final(Euler(), x, sigmas), final(DDIM(), x, sigmas))
    assert torch.equal(final(DDIM(eta=0.7), x, sigmas), final(EulerAncestral(eta=0.7), x, sigmas))
    assert torch.allclose(final(DDIM(eta=1), x, sigmas), final(DDPM(), x, sigmas), rtol=1e-12, atol=1e-12)


def test_euler_is_the_euler_step_of_a_rectified_flow() -> None:
    """z' = z + (t' - t) F in the flow's own frame, with F from the flow's own scalings; float64."""
    process = Flow(shift=3)
    sigmas = FlowShift(shift=3).sigmas(process, 12)
    x = process.prior(unit(8, 4), sigmas[0])
    z = x * process.alpha(sigmas[0])
    for before, after in pairwise(sigmas):
        skip, out, _ = process.scalings(before)
        state = z / process.alpha(before)
        velocity = (MIXTURE.denoise(state, before) - skip * state) / out
        z = z + (after / (1 + after) - before / (1 + before)) * velocity
    assert torch.allclose(z, final(Euler(), x, sigmas), rtol=1e-9, atol=1e-9)


def test_ddim_is_the_published_update_in_the_variance_preserving_frame() -> None:
    """Song et al. 2021, equation 12, written with alpha_bar; float64."""
    eta, sigmas = 0.6, Leading(offset=1).sigmas(PROCESS, 10)
    x = unit(8, 4) * sigmas[0]
    z = x / math.sqrt(1 + sigmas[0] ** 2)
    noise = counted_noise(x.shape)
    for i in range(10):
        bar, before = 1 / (1 + sigmas[i] ** 2), 1 / (1 + sigmas[i + 1] ** 2)
        x0 = MIXTURE.denoise(z / math.sqrt(bar), sigmas[i])
        eps = (z - math.sqrt(bar) * x0) / math.sqrt(1 - bar)
        spread = eta * math.sqrt((1 - before) / (1 - bar)) * math.sqrt(1 - bar / before)
        z = math.sqrt(before) * x0 + math.sqrt(max(1 - before - spread**2, 0)) * eps + spread * noise(i)
    assert torch.allclose(z, final(DDIM(eta=eta), x, sigmas), rtol=1e-10, atol=1e-10)
