"""Folders of diffusers whose U-Net has 2 C output channels, and schedulers that take the second half as a variance."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import diffusers
import pytest
import tiny_diffusers as tiny
import torch
from diffusers.schedulers import scheduling_ddpm
from ldmkit_checkpoints.diffusers.export import save_diffusers
from test_pixel_pipelines import NOISE, STEPS, network, saved
from torch import Tensor

import ldmkit
from ldmkit.models.reading import open_source

LEARNED = {"variance_type": "learned_range"}


def theirs(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Tensor:
    """The last state of DDPMPipeline's loop in float64, with the scheduler's tables from its own betas in float64."""
    unet = diffusers.UNet2DModel.from_pretrained(folder, subfolder="unet").double().eval()
    scheduler = diffusers.DDPMScheduler.from_pretrained(folder, subfolder="scheduler")
    scheduler.betas = torch.linspace(scheduler.config.beta_start, scheduler.config.beta_end, 1000, dtype=torch.float64)
    scheduler.alphas = 1 - scheduler.betas
    scheduler.alphas_cumprod = scheduler.alphas.cumprod(0)
    scheduler.one = scheduler.one.double()
    scheduler.set_timesteps(STEPS)
    steps = iter(range(STEPS))
    monkeypatch.setattr(scheduling_ddpm, "randn_tensor", lambda *args, **kwargs: NOISE(next(steps)).double())
    z = NOISE(0, "start").double()
    for t in scheduler.timesteps:
        with torch.no_grad():
            z = scheduler.step(unet(z, t).sample, t, z).prev_sample
    return z


def ours(pipe: ldmkit.Pipeline, **options: Any) -> Tensor:
    """Latents of a run whose state is float64 too."""
    prepared = pipe.prepare({}, steps=STEPS, seeds=[3], **options)
    noise = prepared.noise
    object.__setattr__(prepared, "x", prepared.x.double())
    object.__setattr__(prepared, "noise", lambda index: noise(index).double())
    *_, step = prepared.steps()
    return prepared.evaluate.process.settled(step.x, step.sigma_next)


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"prediction_type": "v_prediction", "clip_sample": False},
        {"prediction_type": "sample", "timestep_spacing": "linspace"},
        {"thresholding": True, "sample_max_value": 1.5, "dynamic_thresholding_ratio": 0.9},
    ],
)
def test_pixels_in_float64(settings: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """1e-5 of the largest value: both read the time in float32."""
    scheduler = diffusers.DDPMScheduler(**{"timestep_spacing": "leading", **LEARNED, **settings})
    diffusers.DDPMPipeline(network(6), scheduler).save_pretrained(tmp_path / "theirs")
    wanted = theirs(tmp_path / "theirs", monkeypatch)
    pipe = ldmkit.load(tmp_path / "theirs").to(dtype="float64")
    assert pipe.codec.channels == 3 and pipe.spec.defaults.sampler.config["variance"] == "learned"
    found = ours(pipe)
    assert float((found - wanted).abs().max() / wanted.abs().max()) < 1e-5
    plain = ours(pipe, sampler={"type": "ddpm", "config": pipe.spec.defaults.sampler.config | {"variance": "small"}})
    assert float((plain - wanted).abs().max() / wanted.abs().max()) > 1e-3, "the learned variance tells"
    back = ldmkit.load(save_diffusers(pipe.to(dtype="float32"), tmp_path / "back"))
    assert back.spec.defaults == pipe.spec.defaults


def test_a_solver_leaves_the_variance_out(tmp_path: Path) -> None:
    """DPMSolverMultistepScheduler takes the first channels, whichever variance the network has learned."""
    latents = {}
    for variance in (None, "learned", "learned_range"):
        pipe = tiny.stable_diffusion(out_channels=8)
        pipe.scheduler = diffusers.DPMSolverMultistepScheduler(variance_type=variance)
        ours = ldmkit.load(tiny.saved(pipe, tmp_path / str(variance)))
        latents[variance] = ours({"text": "a cat"}, steps=4, seeds=[1]).latents
    assert torch.equal(latents["learned"], latents[None]) and torch.equal(latents["learned_range"], latents[None])


def test_guided_pipelines_say_which_variance_is_meant(tmp_path: Path) -> None:
    pipe = tiny.stable_diffusion_xl(out_channels=8)
    pipe.scheduler = diffusers.DDPMScheduler(timestep_spacing="leading", clip_sample=False, **LEARNED)
    folders = {True: tiny.saved(pipe, tmp_path / "theirs"), False: saved("DDPM", tmp_path / "pixels", **LEARNED)}
    for guided, folder in folders.items():
        source = open_source(folder)
        assert source.spec.defaults.sampler.config["variance"] == "learned"
        assert any("learned_range: guidance" in note for note in source.report.notes) == guided
    assert ldmkit.load(folders[True])({"text": "a cat"}, steps=3, seeds=[1]).latents.isfinite().all()


def test_a_network_without_a_variance_is_refused_when_it_draws(tmp_path: Path) -> None:
    scheduler = diffusers.DDPMScheduler(timestep_spacing="leading", **LEARNED)
    diffusers.DDPMPipeline(network(3), scheduler).save_pretrained(tmp_path)
    with pytest.raises(ldmkit.RunError, match="no learned variance"):
        ldmkit.load(tmp_path)({}, steps=2)
