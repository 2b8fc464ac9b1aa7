"""DDPM with a learned variance, through a whole pipeline, against diffusers' loop; and what `estimate` hands out."""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import diffusers
import pytest
import torch
from ldmkit_processes.discrete import Discrete
from ldmkit_samplers.ddpm import DDPM
from ldmkit_samplers.grids.timesteps import Leading
from tiny_parts import class_pipeline, label, part, unet
from torch import Tensor

import ldmkit
from ldmkit import RunError
from ldmkit.contracts.denoised import Estimates

STEPS = 7
LIMITS = {"bound": 1.5, "quantile": 0.95}


def pipeline(channels: int = 3) -> ldmkit.Pipeline:
    """A pixel model with 2 C output channels over the cosine schedule, as the published ones have it."""
    return ldmkit.Pipeline.of(
        codec=part("codec", "identity", {"channels": channels}),
        denoiser=unet(channels, out_channels=2 * channels),
        process=Discrete(schedule="cosine", cosine_s=0.008, time_rule="round"),
        conditioners={"label": label()},
        defaults={"size": (8, 8)},
    )


def theirs(prepared: Any, scale: float, limits: bool) -> Tensor:
    """Guidance on the first half of the channels, the second half of the conditional rows (diffusers' pipelines of IF
    and unCLIP do so), then DDPMScheduler.step."""
    clip = {"thresholding": True, "dynamic_thresholding_ratio": 0.95, "sample_max_value": 1.5} if limits else {}
    scheduler = diffusers.DDPMScheduler(
        beta_schedule="squaredcos_cap_v2", variance_type="learned_range", clip_sample=False, **clip
    )
    _in_double(scheduler)
    scheduler.set_timesteps(STEPS)
    net, context = prepared.evaluate.denoiser, prepared.evaluate.context((frozenset({"label"}), frozenset()))
    z = prepared.x * scheduler.alphas_cumprod[scheduler.timesteps[0]].sqrt()
    draws = torch.Generator().manual_seed(5)
    for t in scheduler.timesteps:
        with torch.no_grad():
            without, conditional = net(torch.cat([z, z]), t.float().expand(2 * len(z)), context).chunk(2)
        half = z.shape[1]
        eps = without[:, :half] + scale * (conditional[:, :half] - without[:, :half])
        z = scheduler.step(torch.cat([eps, conditional[:, half:]], 1), t, z, generator=draws).prev_sample
    return z


def _in_double(scheduler: Any) -> None:
    """Its tables from its own formula in float64: those in float32 are 1e-6 off, which the networks here amplify."""
    bar = [math.cos((t / 1000 + 0.008) / 1.008 * math.pi / 2) ** 2 for t in range(1001)]
    scheduler.betas = torch.tensor([min(1 - b / a, 0.999) for a, b in pairwise(bar)], dtype=torch.float64)
    scheduler.alphas = 1 - scheduler.betas
    scheduler.alphas_cumprod = scheduler.alphas.cumprod(0)
    scheduler.one = scheduler.one.double()


def drawn(shape: tuple[int, ...]) -> Callable[[int], Tensor]:
    generator = torch.Generator().manual_seed(5)
    noise = [torch.randn(shape, generator=generator, dtype=torch.float64) for _ in range(STEPS)]
    return lambda index: noise[index]


@pytest.mark.parametrize("limits", [False, True])
@pytest.mark.parametrize("channels", [3, 4])
def test_learned_range_is_that_of_diffusers(channels: int, limits: bool) -> None:
    """1e-5 of the largest value, in float64 but for the network's time, which is float32."""
    pipe = pipeline(channels).to(dtype="float64")
    sampler = DDPM(variance="learned", limits=LIMITS if limits else None)  # type: ignore[arg-type]
    prepared = pipe.prepare({"label": 1}, seeds=[0, 1], sampler=sampler, grid=Leading(), steps=STEPS, guidance=3.0)
    noise = drawn(tuple(prepared.x.shape))
    object.__setattr__(prepared, "noise", noise)
    object.__setattr__(prepared, "x", prepared.x.double())
    *_, step = prepared.steps()
    wanted = theirs(prepared, 3.0, limits)
    found = prepared.evaluate.process.settled(step.x, step.sigma_next)
    assert float((found - wanted).abs().max() / wanted.abs().max()) < 1e-5


def test_the_share_is_the_conditional_rows_and_guidance_does_not_act_on_it() -> None:
    pipe = pipeline()
    prepared = pipe.prepare({"label": 1}, seeds=[0, 1], guidance=1.0, steps=4)
    x, sigma = prepared.x, prepared.sigmas[0]
    assert isinstance(prepared.denoise, Estimates)
    wanted = prepared.denoise.estimate(x, sigma, "variance")
    assert wanted.variance is not None and wanted.unconditional is None
    for scale in (0.0, 3.0):
        other = pipe.prepare({"label": 1}, seeds=[0, 1], guidance=scale, steps=4).denoise
        assert isinstance(other, Estimates)
        found = other.estimate(x, sigma, "variance", "unconditional")
        assert found.variance is not None and found.unconditional is not None
        assert torch.allclose(found.variance, wanted.variance, atol=1e-6)
        assert torch.equal(found.x0, other(x, sigma)) or scale == 0.0
        without = pipe.prepare({"label": 1}, seeds=[0, 1], guidance=0.0, steps=4).denoise(x, sigma)
        assert torch.allclose(found.unconditional, without, atol=1e-5)


def test_a_network_without_a_variance_is_refused() -> None:
    with pytest.raises(RunError, match="no learned variance") as caught:
        class_pipeline()({"label": 1}, sampler=DDPM(variance="learned"))
    assert caught.value.code == "run.no-estimate"


def test_rows_that_a_sampler_needs_are_counted_and_evaluated_in_one_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    pipe, rows = class_pipeline(), list[int]()
    inner = pipe.denoiser.forward
    monkeypatch.setattr(pipe.denoiser, "forward", lambda x, *more: rows.append(len(x)) or inner(x, *more))
    for scale, sampler, wanted in ((1.0, "euler", 1), (1.0, "euler-cfg-pp", 2), (0.6, "euler-cfg-pp", 2)):
        prepared = pipe.prepare({"label": 1}, sampler=sampler, guidance=scale, steps=3)
        rows.clear()
        for _ in prepared.steps():
            pass
        assert rows == [wanted] * 3 and prepared.rows == prepared.estimate.rows == wanted


def test_what_a_mask_keeps_is_kept_by_cfg_pp() -> None:
    """Where nothing is drawn the state stays on the known latent, whatever direction a step takes."""
    pipe = class_pipeline()
    picture = pipe({"label": 2}, seeds=3).images[0]
    mask = torch.zeros(1, 8, 8)
    mask[:, 4:] = 1
    start = ldmkit.Start(image=2 * picture - 1, mask=mask, strength=1.0)
    for sampler in ("euler-cfg-pp", "dpmpp-2m-cfg-pp"):
        prepared = pipe.prepare({"label": 1}, start=start, sampler=sampler, guidance=0.7, steps=4)
        *_, step = prepared.steps()
        known = prepared.denoise.known  # type: ignore[attr-defined]
        assert torch.allclose(step.x[..., :4, :], known[..., :4, :], atol=1e-5)
        assert not torch.allclose(step.x[..., 4:, :], known[..., 4:, :], atol=1e-2)
