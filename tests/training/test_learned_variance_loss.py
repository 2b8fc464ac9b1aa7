"""L_hybrid = L_simple + lambda L_vlb (Nichol & Dhariwal 2021) against its formulas on the process's own scale."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from ldmkit_processes.discrete import Discrete
from ldmkit_training.stages.denoiser.objective import DenoiserTurn
from ldmkit_training.stages.denoiser.section import DenoiserObjective
from ldmkit_training.stages.denoiser.variance import variance_bound
from tiny_parts import part, unet
from torch import Tensor
from torch.distributions import Normal, kl_divergence

import ldmkit
from ldmkit import Batch, CompositionError, Draws

PROCESSES = {
    "linear": Discrete(schedule="linear", beta_start=1e-4, beta_end=0.02),
    "cosine-v": Discrete(schedule="cosine", prediction="v"),
    "x0": Discrete(schedule="cosine", prediction="x0", steps=50),
}


def reference(process: Discrete, output: Tensor, x0: Tensor, noise: Tensor, t: int) -> Tensor:
    """T L_t in bits per element for one row, from the betas alone, by torch's own distributions."""
    betas = torch.tensor(process.table.betas, dtype=torch.float64)
    bars = (1 - betas).cumprod(0)
    before = torch.cat([torch.ones(1).double(), bars])[:-1]
    z = bars[t].sqrt() * x0 + (1 - bars[t]).sqrt() * noise
    out, v = output.chunk(2, 0)
    guess = {
        "eps": (z - (1 - bars[t]).sqrt() * out) / bars[t].sqrt(),
        "v": bars[t].sqrt() * z - (1 - bars[t]).sqrt() * out,
        "x0": out,
    }[process.prediction].detach()

    def mean(x: Tensor) -> Tensor:
        on_z = (1 - before[t]) * (1 - betas[t]).sqrt() / (1 - bars[t])
        return before[t].sqrt() * betas[t] / (1 - bars[t]) * x + on_z * z

    small = (1 - before) / (1 - bars) * betas
    least = small[t] if t else small[1]
    log = (v + 1) / 2 * betas[t].log() + (1 - v) / 2 * least.log()
    learned = Normal(mean(guess), (log / 2).exp())
    if t:
        return process.steps * kl_divergence(Normal(mean(x0), small[t].sqrt()), learned).mean() / math.log(2)
    above = torch.where(x0 > 0.999, 1.0, learned.cdf(x0 + 1 / 255))
    below = torch.where(x0 < -0.999, 0.0, learned.cdf(x0 - 1 / 255))
    return process.steps * -(above - below).clamp(min=1e-12).log().mean() / math.log(2)


@pytest.mark.parametrize("name", PROCESSES)
def test_the_bound_is_the_formula(name: str) -> None:
    """1e-4 of the value, as the loss is float32 and variances of 1e-5 amplify its rounding."""
    process, draws = PROCESSES[name], torch.Generator().manual_seed(0)
    times = [0, 0, 1, 20, process.steps - 1]
    levels = torch.randint(0, 256, (len(times), 3, 4, 4), generator=draws)
    levels[1, :, :2] = torch.tensor([0, 255]).view(1, 2, 1)  # the outer levels have open ends
    x0, noise = levels / 127.5 - 1, torch.randn(len(times), 3, 4, 4, generator=draws)
    exact = process.model_copy(update={"prediction": process.prediction})
    sigma = [exact.table.sigmas[t] for t in times]
    target = process.target(x0, noise, sigma)
    output = torch.cat([target + 0.1 * torch.randn(target.shape, generator=draws), noise.sin()], 1).requires_grad_()
    got = variance_bound(output, process, x0, noise=noise, sigma=sigma)
    rows = zip(output.double(), x0.double(), noise.double(), times, strict=True)
    want = torch.stack([reference(process, *row) for row in rows])
    assert torch.allclose(got.double(), want, rtol=1e-4)
    slopes = [torch.autograd.grad(value.sum(), output, retain_graph=True)[0] for value in (got, want)]
    assert (slopes[0] - slopes[1]).abs().max() < 1e-4 * slopes[1].abs().max()
    assert not slopes[0][:, :3].any() and slopes[0][:, 3:].any()  # the mean gets no gradient


def pipeline(outputs: int | None = 6, **process: Any) -> ldmkit.Pipeline:
    net = unet(3, context_dim=None, out_channels=outputs).train().requires_grad_()
    made = ldmkit.get("process", process.pop("type", "discrete"))(**process)
    return ldmkit.Pipeline.of(codec=part("codec", "identity", {}), denoiser=net, process=made,
                              conditioners={}, defaults={"size": (8, 8)})  # fmt: skip


def turn(pipe: ldmkit.Pipeline, **objective: Any) -> DenoiserTurn:
    return DenoiserTurn(pipe, DenoiserObjective.of(objective), {"denoiser": pipe.denoiser})


def batch(step: int = 0) -> Batch:
    images = torch.rand(4, 3, 8, 8, generator=torch.Generator().manual_seed(2)) * 2 - 1
    return Batch(tuple("abcd"), images, None, None, [{} for _ in range(4)], (8, 8), Draws(0, step, (0, 1, 2, 3)))


def test_the_loss_is_hybrid() -> None:
    """simple + 0.001 bound, of the same noise; the gradient of the mean's channels is that of `simple` alone."""
    pipe = pipeline()
    plain, hybrid = turn(pipe)(batch(), 0), turn(pipe, variance=0.001)(batch(), 0)
    assert torch.equal(hybrid.parts["simple"], plain.total) and hybrid.parts["variance"] > 0
    assert torch.allclose(hybrid.total, plain.total + hybrid.parts["variance"])
    doubled = turn(pipe, variance=0.002)(batch(), 0)
    assert torch.allclose(doubled.parts["variance"], 2 * hybrid.parts["variance"])
    last = pipe.denoiser.conv_out.weight
    slopes = [torch.autograd.grad(loss.total, last, retain_graph=True)[0] for loss in (plain, hybrid)]
    assert torch.equal(slopes[0][:3], slopes[1][:3])
    assert not slopes[0][3:].any() and slopes[1][3:].any()


def test_what_cannot_learn_a_variance_is_refused() -> None:
    for pipe, code in (
        (pipeline(None), "compose.no-variance"),
        (pipeline(type="edm"), "compose.variance-process"),
    ):
        with pytest.raises(CompositionError) as caught:
            turn(pipe, variance=0.001)
        assert caught.value.code == code


@pytest.mark.parametrize("other", [{"mask": {}}, {"noise_offset": 0.1}, {"pyramid": {}}])
def test_what_the_bound_does_not_hold_for_is_refused(other: dict[str, Any]) -> None:
    with pytest.raises(ldmkit.SpecError, match="white noise and whole pictures"):
        DenoiserObjective.of({"variance": 0.001, **other})


def test_a_variance_that_nothing_trains_is_said() -> None:
    with pytest.warns(UserWarning, match="a learned variance, is not trained"):
        turn(pipeline())
