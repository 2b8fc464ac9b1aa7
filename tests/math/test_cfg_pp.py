"""CFG++ on a mixture whose two estimates are exact, against the published formulas; float64."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from itertools import pairwise

import pytest
import torch
from ldmkit_processes.discrete import Discrete
from ldmkit_processes.guidance.cfg import CFG
from ldmkit_samplers.cfg_pp import DPMpp2MCFGpp, DPMpp2SAncestralCFGpp, EulerAncestralCFGpp, EulerCFGpp
from ldmkit_samplers.dpmpp_2m import DPMpp2M
from ldmkit_samplers.dpmpp_2s_ancestral import DPMpp2SAncestral
from ldmkit_samplers.euler import Euler
from ldmkit_samplers.euler_ancestral import EulerAncestral
from ldmkit_samplers.grids.sigmas import Karras
from torch import Tensor

from ldmkit import Denoise, RunError, Sampler, with_unconditional
from ldmkit.testing.sampler.mixture import Mixture

MIXTURE = Mixture.random()
COMPONENT = MIXTURE.component(2)
PAIRS: list[tuple[Sampler, Sampler]] = [
    (EulerCFGpp(), Euler()),
    (EulerAncestralCFGpp(eta=0.6), EulerAncestral(eta=0.6)),
    (DPMpp2MCFGpp(), DPMpp2M()),
    (DPMpp2SAncestralCFGpp(eta=0.6), DPMpp2SAncestral(eta=0.6)),
]
LEVELS = [*Karras().sigmas(Discrete(), 9)]


def unit(seed: int = 0) -> Tensor:
    return torch.randn((8, 4), generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def guided(scale: float) -> Denoise:
    return lambda x, s: torch.lerp(MIXTURE.denoise(x, s), COMPONENT.denoise(x, s), scale)


def end(sampler: Sampler, denoise: Denoise, levels: Sequence[float] = LEVELS) -> Tensor:
    return list(sampler.steps(denoise, unit(99) * levels[0], levels, unit))[-1].x


def both(scale: float) -> Denoise:
    return with_unconditional(guided(scale), MIXTURE.denoise)


@pytest.mark.parametrize("scale", [0.2, 0.6, 1.0])
def test_euler_is_the_papers_ddim(scale: float) -> None:
    """Chung et al. 2024, algorithm 2, in a variance-preserving frame, as it stands there."""
    bars = [1 / (1 + s * s) for s in LEVELS]
    z = unit(99) * LEVELS[0] * math.sqrt(bars[0])
    for (bar, bar_next), sigma in zip(pairwise(bars), LEVELS, strict=False):
        x = z / math.sqrt(bar)
        eps_none = (z - math.sqrt(bar) * MIXTURE.denoise(x, sigma)) / math.sqrt(1 - bar)
        eps_text = (z - math.sqrt(bar) * COMPONENT.denoise(x, sigma)) / math.sqrt(1 - bar)
        eps = eps_none + scale * (eps_text - eps_none)
        z0 = (z - math.sqrt(1 - bar) * eps) / math.sqrt(bar)
        z = math.sqrt(bar_next) * z0 + math.sqrt(1 - bar_next) * eps_none
    assert torch.allclose(end(EulerCFGpp(), both(scale)), z, rtol=1e-10, atol=1e-10)


def ancestral(sigma: float, after: float, eta: float) -> tuple[float, float]:
    up = min(after, eta * math.sqrt(after**2 * (sigma**2 - after**2) / sigma**2))
    return math.sqrt(after**2 - up**2), up


def published(kind: str, scale: float, eta: float) -> Iterator[Tensor]:
    """States by the formulas of the samplers' published form: noise directions and exponentials of log sigma."""
    x, before, last = unit(99) * LEVELS[0], None, 0.0
    for i, (sigma, after) in enumerate(pairwise(LEVELS)):
        g, u = guided(scale)(x, sigma), MIXTURE.denoise(x, sigma)
        down, up = ancestral(sigma, after, eta)
        if kind == "euler-ancestral" or after == 0:
            x = g + down * (x - u) / sigma
        elif kind == "2m":
            h = math.log(sigma / after)
            mixed = -math.exp(-h) * u
            if before is not None:
                mixed = mixed - math.expm1(-h) / (2 * last / h) * (g - before)
            x = g + mixed + math.exp(-h) * x
            before, last = u, h
        else:
            h = math.log(sigma / down)
            ahead = math.exp(-h / 2) * (x + (g - u)) - math.expm1(-h / 2) * g
            second = guided(scale)(ahead, sigma * math.exp(-h / 2))
            x = math.exp(-h) * (x + (g - u)) - math.expm1(-h) * second
        x = x + up * unit(i) if after and kind != "2m" else x
        yield x


@pytest.mark.parametrize("scale", [0.3, 1.0, 1.4])
@pytest.mark.parametrize(
    ("kind", "sampler", "eta"),
    [
        ("euler-ancestral", EulerAncestralCFGpp(), 1.0),
        ("euler-ancestral", EulerAncestralCFGpp(eta=0.5), 0.5),
        ("2m", DPMpp2MCFGpp(), 0.0),
        ("2s", DPMpp2SAncestralCFGpp(), 1.0),
        ("2s", DPMpp2SAncestralCFGpp(eta=0.0), 0.0),
    ],
)
def test_the_others_are_their_published_forms(kind: str, sampler: Sampler, eta: float, scale: float) -> None:
    """To rounding: the same numbers added in another order. The second level of 2S is off by one ulp at eta = 1."""
    *_, wanted = published(kind, scale, eta)
    assert torch.allclose(end(sampler, both(scale)), wanted, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(("plus", "plain"), PAIRS, ids=lambda s: type(s).__name__)
def test_where_both_estimates_agree_it_is_the_sampler_it_is_made_from(plus: Sampler, plain: Sampler) -> None:
    """At lambda 0 on the unconditional estimate; without conditions; and not at any other lambda."""
    assert torch.allclose(end(plus, both(0.0)), end(plain, MIXTURE.denoise), rtol=1e-12, atol=1e-12)
    alone = with_unconditional(COMPONENT.denoise)
    assert torch.allclose(end(plus, alone), end(plain, COMPONENT.denoise), rtol=1e-12, atol=1e-12)
    assert not torch.allclose(end(plus, both(0.5)), end(plain, guided(0.5)), rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize(("plus", "plain"), PAIRS, ids=lambda s: type(s).__name__)
def test_samples_go_to_the_component(plus: Sampler, plain: Sampler) -> None:
    """A lambda of 0.6 in 20 steps brings all samples to the labelled component, as ordinary guidance of 5 does."""
    levels = Karras().sigmas(Discrete(), 20)
    found, ordinary = end(plus, both(0.6), levels), end(plain, guided(5.0), levels)
    for state in (found, ordinary):
        nearest = (state[:, None] - MIXTURE.means).square().sum(2).argmin(1)
        assert (nearest == 2).all()


@pytest.mark.parametrize(("plus", "plain"), PAIRS, ids=lambda s: type(s).__name__)
def test_a_plain_function_is_refused_with_a_way_out(plus: Sampler, plain: Sampler) -> None:
    with pytest.raises(RunError, match="no unconditional estimate") as caught:
        end(plus, guided(0.5))
    assert caught.value.code == "run.no-estimate" and "with_unconditional" in str(caught.value)
    assert end(plain, guided(0.5)).isfinite().all()


def test_the_scale_of_guidance_is_lambda() -> None:
    assert CFG(scale=0.6).scale == 0.6  # lambda below 1 is within the bounds of a guidance's scale
