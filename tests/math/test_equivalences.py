"""Laws that hold exactly, or in distribution, whatever the network."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import pairwise

import pytest
import torch
from ldmkit_processes.discrete import Discrete
from ldmkit_processes.edm import EDM
from ldmkit_processes.flow import Flow
from ldmkit_samplers.churn import Churn
from ldmkit_samplers.ddim import DDIM
from ldmkit_samplers.ddpm import DDPM
from ldmkit_samplers.deis import DEIS
from ldmkit_samplers.dpm2 import DPM2
from ldmkit_samplers.dpmpp_2m import DPMpp2M
from ldmkit_samplers.dpmpp_2m_sde import DPMpp2MSDE
from ldmkit_samplers.dpmpp_2s_ancestral import DPMpp2SAncestral
from ldmkit_samplers.dpmpp_3m import DPMpp3M
from ldmkit_samplers.dpmpp_3m_third_order import DPMpp3MThirdOrder
from ldmkit_samplers.dpmpp_sde import DPMppSDE
from ldmkit_samplers.euler import Euler
from ldmkit_samplers.euler_ancestral import EulerAncestral
from ldmkit_samplers.grids.sigmas import Exponential, FlowShift, Karras, LogSNR
from ldmkit_samplers.grids.timesteps import Leading
from ldmkit_samplers.heun import Heun
from ldmkit_samplers.ipndm import IPNDM
from ldmkit_samplers.lcm import LCM
from ldmkit_samplers.lms import LMS
from ldmkit_samplers.plms import PLMS
from ldmkit_samplers.restart import Restart
from ldmkit_samplers.tcd import TCD
from ldmkit_samplers.unipc import UniPC
from torch import Tensor

from ldmkit.contracts import Process, Sampler
from ldmkit.noise import Noise
from ldmkit.testing.mixture import Mixture

PROCESS = Discrete()
MIXTURE = Mixture.random()
DETERMINISTIC: list[Sampler] = [
    Euler(),
    DDIM(),
    PLMS(),
    Heun(),
    DPMpp2M(),
    UniPC(),
    UniPC(solver_order=3, variant="bh1"),
    *(IPNDM(), LMS(), DEIS(), DPM2(), DPMpp3M(), DPMpp3MThirdOrder(), DPMpp2SAncestral(eta=0), DPMppSDE(eta=0)),
]
STOCHASTIC: list[Sampler] = [
    *(DDIM(eta=1), DDPM(), DDPM(variance="large"), EulerAncestral(), DPMpp2MSDE()),
    *(DPM2(eta=1), DPMpp2SAncestral(), DPMppSDE(), DPMpp3M(eta=1), DPMpp3MThirdOrder(eta=1)),
    *(LCM(), TCD(), Churn(), Restart(rounds=2)),
]
ALL = DETERMINISTIC + STOCHASTIC


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


@pytest.mark.parametrize("sampler", ALL, ids=repr)
@pytest.mark.parametrize(
    "process", [PROCESS, Flow(), EDM(), Discrete(zero_terminal_snr=True, prediction="v")], ids=repr
)
def test_a_constant_denoiser_is_hit_exactly(sampler: Sampler, process: Process) -> None:
    """x0 is known, so every sampler ends on it: bit for bit, as the last step is x0 itself."""
    x0 = unit(2, 3, 5)
    sigmas = Exponential().sigmas(process, 7)
    steps = list(
        sampler.steps(
            lambda x, sigma: x0, process.prior(unit(2, 3, 5, seed=1), sigmas[0]), sigmas, counted_noise((2, 3, 5))
        )
    )
    assert torch.allclose(steps[-1].x, x0, rtol=1e-12, atol=1e-9)


class Watched:
    """A denoiser that remembers its calls, and what it was given and gave, with copies."""

    def __init__(self, mixture: Mixture):
        self.mixture = mixture
        self.calls: list[float] = []
        self.seen: list[tuple[Tensor, Tensor]] = []

    def __call__(self, x: Tensor, sigma: float) -> Tensor:
        x0 = self.mixture.denoise(x, sigma)
        self.calls.append(sigma)
        self.seen.extend([(x, x.clone()), (x0, x0.clone())])
        return x0


@pytest.mark.parametrize("sampler", ALL, ids=repr)
@pytest.mark.parametrize("shape", [(1,), (3, 4), (2, 3, 4, 5), (1, 2, 3, 4, 5)], ids=str)
def test_n_steps_for_every_n(sampler: Sampler, shape: tuple[int, ...]) -> None:
    """Counts, indices and sigmas of the steps; evaluations as announced; the state never written to; any rank."""
    mixture = Mixture(unit(3, *shape), torch.tensor([0.1, 0.2, 0.3], dtype=torch.float64))
    for grid in (Karras(), LogSNR()):
        for count in (1, 2, 3, 4, 5, 9):
            sigmas = grid.sigmas(PROCESS, count)
            watched = Watched(mixture)
            x = unit(2, *shape) * sigmas[0]
            steps = list(sampler.steps(watched, x, sigmas, counted_noise(x.shape)))
            assert [s.index for s in steps] == list(range(count))
            assert [(s.sigma, s.sigma_next) for s in steps] == list(pairwise(sigmas))
            assert all(s.count == count and s.x.shape == x.shape and s.x0.shape == x.shape for s in steps)
            assert all(torch.isfinite(s.x).all() for s in steps)
            assert all(torch.equal(tensor, copy) for tensor, copy in watched.seen)
            assert all(sigma > 0 for sigma in watched.calls)
            if sigmas[-1] == 0:
                assert len(watched.calls) == sampler.evaluations(count)


@pytest.mark.parametrize("sampler", ALL, ids=repr)
def test_steps_already_given_are_not_written_to(sampler: Sampler) -> None:
    x = unit(2, 4) * PROCESS.sigma_max
    kept = []
    for step in sampler.steps(MIXTURE.denoise, x, Karras().sigmas(PROCESS, 8), counted_noise(x.shape)):
        kept.append((step.x, step.x.clone(), step.x0, step.x0.clone()))
    assert all(torch.equal(a, b) and torch.equal(c, d) for a, b, c, d in kept)


@pytest.mark.parametrize("sampler", ALL, ids=repr)
def test_a_sample_does_not_depend_on_its_batch(sampler: Sampler) -> None:
    """float32, noise by seed: alone and third in a batch, the same to rounding (reductions may differ in order)."""
    sigmas = Karras().sigmas(PROCESS, 9)

    def run(seeds: Sequence[int]) -> Tensor:
        noise = Noise(seeds, (4,))
        x = PROCESS.prior(noise(0, "start"), sigmas[0])
        return list(sampler.steps(MIXTURE.denoise, x, sigmas, noise))[-1].x

    assert torch.allclose(run([3, 1, 7])[2:], run([7]), rtol=1e-5, atol=1e-5)


ROWS = 40_000
LIMIT = 5.0
"""In standard errors. 5 samplers x 2 x (4 + 10) statistics are tested: a correct sampler fails by chance with
probability below 140 * 5.8e-7 = 8e-5 for Gaussian statistics; seeds are fixed, so it either does or does not."""


@pytest.mark.parametrize("sampler", [DDIM(eta=1), DDIM(eta=0.5), DDPM(), EulerAncestral(), DPMpp2MSDE()], ids=repr)
def test_noise_keeps_the_marginals(sampler: Sampler) -> None:
    """Mean and covariance at the end, and at the noise level half way, against the exact ones.

    The data is one Gaussian, 60 steps; the start is drawn from the exact marginal, so what is left is the
    solver's own bias, which is allowed 1 % of the scale beside the sampling error.
    """
    gaussian = Mixture(
        torch.tensor([[1.0, -0.5, 0.25, 0.0]], dtype=torch.float64), torch.tensor([0.25], dtype=torch.float64)
    )
    sigmas = Exponential(smallest=0.02, largest=10.0).sigmas(PROCESS, 120)
    x = gaussian.means + unit(ROWS, 4, seed=5) * math.sqrt(0.25 + sigmas[0] ** 2)
    steps = list(sampler.steps(gaussian.denoise, x, sigmas, counted_noise(x.shape)))
    for step in (steps[80], steps[-1]):
        variance = 0.25 + step.sigma_next**2
        error = (step.x.mean(0) - gaussian.means[0]).abs() / math.sqrt(variance)
        assert float(error.max()) < LIMIT / math.sqrt(ROWS) + 0.01
        covariance = step.x.T.cov() / variance
        wrong = (covariance - torch.eye(4, dtype=torch.float64)).abs()
        assert float(wrong.max()) < LIMIT * math.sqrt(2 / ROWS) + 0.03, float(wrong.max())


def test_noise_of_the_wrong_size_would_be_seen() -> None:
    """The marginal test's power: DDPM's large variance is biased by more than the tolerance at 20 steps."""
    gaussian = Mixture(torch.zeros(1, 4, dtype=torch.float64), torch.tensor([0.25], dtype=torch.float64))
    sigmas = Exponential(smallest=0.02, largest=10.0).sigmas(PROCESS, 20)
    x = unit(ROWS, 4, seed=5) * math.sqrt(0.25 + sigmas[0] ** 2)
    end = final(DDPM(variance="large"), x, sigmas[:-1], gaussian)
    assert float(end.var(0).mean()) / (0.25 + sigmas[-2] ** 2) > 1.05
