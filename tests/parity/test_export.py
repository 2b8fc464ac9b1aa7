"""`ldmkit export`: what it writes gives the same numbers in diffusers 0.42, to 1e-5 of the largest (float32)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import diffusers
import pytest
import tiny_parts
import torch
from ldmkit_checkpoints.diffusers.export import ExportWarning, save_diffusers
from ldmkit_checkpoints.diffusers.folding import standard
from torch import Tensor

import ldmkit
from ldmkit.cli import main
from ldmkit.models.saving import save_part

GENERATOR = torch.Generator().manual_seed(0)
IMAGES = torch.rand(2, 3, 32, 32, generator=GENERATOR) * 2 - 1
GEOMETRY = {"widths": (8, 16), "norm_groups": 4, "blocks": 1, "z_channels": 3}
PER_CHANNEL = {"scale": (0.5, 2.0, 1.5), "shift": (0.3, -0.2, 1.0)}


def close(got: Tensor, want: Tensor) -> None:
    assert got.shape == want.shape
    assert float((got - want).abs().max()) <= 1e-5 * max(1.0, float(want.abs().max()))


def saved(kind: str, folder: Path, **config: Any) -> Any:
    codec = tiny_parts.part("codec", kind, GEOMETRY | config)
    save_part("codec", codec, folder / "codec")
    return codec


@pytest.mark.parametrize("mid", ["vanilla", "none"])
def test_a_kl_codec_with_its_measured_statistics(tmp_path: Path, mid: str) -> None:
    codec = saved("kl", tmp_path, mid_attention=mid, **PER_CHANNEL)
    assert main(["export", str(tmp_path / "codec"), "--out", str(tmp_path / "vae")]) == 0
    there = diffusers.AutoencoderKL.from_pretrained(tmp_path / "vae")
    assert there.config.scaling_factor == 1.0 and there.config.shift_factor is None
    with torch.no_grad():
        latents = codec.encode(IMAGES)
        posterior = there.encode(IMAGES).latent_dist
        close(posterior.mean, latents)
        noise = torch.randn(latents.shape, generator=torch.Generator().manual_seed(1))
        close(posterior.mean + posterior.std * noise, codec.encode(IMAGES, noise))
        close(there.decode(latents).sample, codec.decode(latents))


def test_a_kl_codec_with_one_scale_keeps_it_as_diffusers_writes_it(tmp_path: Path) -> None:
    codec = saved("kl", tmp_path, scale=0.7)
    assert standard(codec) is codec
    main(["export", str(tmp_path / "codec"), "--out", str(tmp_path / "vae")])
    there = diffusers.AutoencoderKL.from_pretrained(tmp_path / "vae")
    with torch.no_grad():
        close(there.encode(IMAGES).latent_dist.mean * there.config.scaling_factor, codec.encode(IMAGES))


def test_a_vq_codec(tmp_path: Path) -> None:
    codec = saved("vq", tmp_path, codebook_size=16, scale=1.3)
    main(["export", str(tmp_path / "codec"), "--out", str(tmp_path / "vqvae")])
    there = diffusers.VQModel.from_pretrained(tmp_path / "vqvae")
    with torch.no_grad():
        latents = codec.encode(IMAGES)
        close(there.encode(IMAGES).latents * there.config.scaling_factor, latents)
        close(there.decode(latents / there.config.scaling_factor).sample, codec.decode(latents))


def test_parts_of_a_pipeline_that_diffusers_has_no_pipeline_for(tmp_path: Path) -> None:
    pipe = tiny_parts.class_pipeline("kl")
    pipe.save(tmp_path / "model")
    command = ["export", str(tmp_path / "model"), "--out", str(tmp_path / "out")]
    assert main([*command, "--part", "codec", "--part", "denoiser", "--part", "process"]) == 0
    vae = diffusers.AutoencoderKL.from_pretrained(tmp_path / "out", subfolder="vae")
    unet = diffusers.UNet2DConditionModel.from_pretrained(tmp_path / "out", subfolder="unet")
    scheduler = diffusers.DDIMScheduler.from_pretrained(tmp_path / "out", subfolder="scheduler")
    x = torch.randn(2, 2, 8, 8, generator=torch.Generator().manual_seed(2))
    context = torch.randn(2, 1, 8, generator=torch.Generator().manual_seed(3))
    with torch.no_grad():
        mine = pipe.denoiser(x, torch.tensor([3.0, 700.0]), pipe.denoiser.prepare({"context": ldmkit.Tokens(context)}))
        theirs = unet(x, torch.tensor([3, 700]), encoder_hidden_states=context).sample
        close(theirs, mine)
        close(vae.decode(x).sample, pipe.codec.decode(x))
    # sigma^2 = (1 - alpha_bar) / alpha_bar; their alpha_bar is float32, and 1 - alpha_bar at t = 0 is 8.5e-4
    bars = scheduler.alphas_cumprod.double()
    sigmas = torch.tensor([pipe.process.sigma_of_time(t) for t in (0, 500, 999)]).double()
    torch.testing.assert_close(((1 - bars) / bars).sqrt()[[0, 500, 999]], sigmas, rtol=1e-4, atol=0)


def test_an_unconditional_pipeline_as_a_whole(tmp_path: Path) -> None:
    """DDIM from the same noise: pictures to 1e-4 after five steps that both round in their own order."""
    from diffusers.pipelines.deprecated.latent_diffusion_uncond import LDMPipeline

    codec = tiny_parts.part("codec", "kl", GEOMETRY | PER_CHANNEL | {"mid_attention": "none"})
    with torch.random.fork_rng(devices=[]):
        unet = tiny_parts.unet(3, None, attention=("none", "self"))
    pipe = ldmkit.Pipeline.of(
        codec=codec,
        denoiser=unet,
        process=ldmkit.get("process", "discrete")(),
        defaults={"size": (16, 16), "steps": 5},
    )
    pipe.save(tmp_path / "model")
    assert main(["export", str(tmp_path / "model"), "--out", str(tmp_path / "out")]) == 0
    index = (tmp_path / "out" / "model_index.json").read_text()
    assert "LDMPipeline" in index and LDMPipeline.__name__ == "LDMPipeline"
    back = ldmkit.load(tmp_path / "out")
    one, other = (p({}, seeds=[4], steps=5).latents for p in (pipe, back))  # files of diffusers have no steps
    torch.testing.assert_close(one, other, rtol=0, atol=1e-4)
    with torch.no_grad():
        close(back.codec.decode(one), pipe.codec.decode(one))


@pytest.mark.parametrize(
    ("kind", "config", "names"),
    [
        ("kl", {"mid_attention": "linear"}, "linear attention"),
        ("kl", {"resample_conv": False}, "resampling"),
        ("kl", {"quant_conv": False, "post_quant_conv": False, "shift": 0.5}, "1x1"),
        ("vq", {"codebook_size": 8, **PER_CHANNEL}, "per channel"),
        ("identity", None, "identity"),
    ],
)
def test_codecs_that_diffusers_does_not_have_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], kind: str, config: dict[str, Any] | None, names: str
) -> None:
    codec = tiny_parts.part("codec", kind, {} if config is None else GEOMETRY | config)
    save_part("codec", codec, tmp_path / "codec")
    assert main(["export", str(tmp_path / "codec"), "--out", str(tmp_path / "out")]) != 0
    assert names in capsys.readouterr().err and not (tmp_path / "out").exists()


def test_pipelines_and_parts_that_cannot_be_written_name_the_part(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tiny_parts.scene_pipeline().save(tmp_path / "model")
    command = ["export", str(tmp_path / "model"), "--out", str(tmp_path / "out")]
    for more, words in (
        ([], "layout"),
        (["--part", "codec"], "codec"),
        (["--part", "denoisr"], "denoiser"),
        (["--part", "text"], "codec"),
    ):
        assert main([*command, *more]) != 0
        assert words in capsys.readouterr().err and not (tmp_path / "out").exists()
    assert main(["export", str(tmp_path / "model"), "--out", str(tmp_path / "model"), "--part", "process"]) != 0
    assert (tmp_path / "model" / "pipeline.json").is_file(), "a saved pipeline is not written over"


def pixel(sampler: dict[str, Any], **defaults: Any) -> ldmkit.Pipeline:
    with torch.random.fork_rng(devices=[]):
        unet = tiny_parts.unet(3, None, attention=("none", "self"))
    given = {"size": (8, 8), "steps": 50, "sampler": sampler, **defaults}
    codec, process = tiny_parts.part("codec", "identity", {}), ldmkit.get("process", "discrete")()
    return ldmkit.Pipeline.of(codec=codec, denoiser=unet, process=process, defaults=given)


@pytest.mark.parametrize(
    ("sampler", "defaults", "words"),
    [
        ({"type": "dpmpp-2m"}, {"grid": {"type": "trailing"}}, ["'dpmpp-2m' on the grid 'trailing'", "DDIMScheduler"]),
        ({"type": "restart"}, {"grid": {"type": "karras"}}, ["no scheduler for 'restart'", "DDIMScheduler"]),
        ({"type": "ddim"}, {"steps": 12}, ["num_inference_steps=12"]),
        ({"type": "ddim", "config": {"eta": 1.0}}, {}, ["eta=1.0"]),
        ({"type": "ddpm"}, {"steps": 50}, ["num_inference_steps=50", "DDPMPipeline"]),
    ],
)
def test_what_a_folder_does_not_hold_is_said(
    tmp_path: Path, sampler: dict[str, Any], defaults: dict[str, Any], words: list[str]
) -> None:
    """DDIMPipeline runs every scheduler's config as DDIM."""
    with pytest.warns(ExportWarning) as caught:
        save_diffusers(pixel(sampler, **defaults), tmp_path / "out")
    (said,) = [str(warning.message) for warning in caught]
    assert all(word in said for word in words)
    there = diffusers.DiffusionPipeline.from_pretrained(tmp_path / "out")
    named = json.loads((tmp_path / "out" / "model_index.json").read_text())["scheduler"][1]
    assert type(there.scheduler).__name__ == named


def test_nothing_is_said_where_nothing_is_lost(tmp_path: Path, recwarn: pytest.WarningsRecorder) -> None:
    save_diffusers(pixel({"type": "ddim"}), tmp_path / "out")
    assert not [warning for warning in recwarn if issubclass(warning.category, ExportWarning)]


def test_the_command_says_it_too(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pixel({"type": "restart"}).save(tmp_path / "model")
    assert main(["export", str(tmp_path / "model"), "--out", str(tmp_path / "out")]) == 0
    assert "warning: diffusers has no scheduler for 'restart'" in capsys.readouterr().err
    command = ["export", str(tmp_path / "model"), "--out", str(tmp_path / "part"), "--part", "process"]
    assert main(command) == 0
    assert "no scheduler for 'restart'" in capsys.readouterr().err
