"""What pipelines of diffusers apply to latents of their first stage: pictures equal to theirs, whatever the file says.

Tolerance: 1e-4 of the pictures' range, in float32; a number that is applied or left out wrongly shows at 1e-2 or more.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any
from unittest import mock

import diffusers
import numpy as np
import PIL.Image
import pytest
import torch
from diffusers.pipelines.deprecated.latent_diffusion_uncond import pipeline_latent_diffusion_uncond
from diffusers.pipelines.latent_diffusion import pipeline_latent_diffusion_superresolution
from ldm_pipelines import paper_text, start_noise, super_resolution, unconditional, vq_model

import ldmkit
from ldmkit.models.reading import open_source

sys.path.append(str(Path(__file__).parents[1] / "pipelines"))
import tiny_diffusers as tiny

Image = np.ndarray[Any, Any]


def audible(codec: Any) -> Any:
    """Weights with which pictures depend on the latents' scale."""
    generator = torch.Generator().manual_seed(5)
    for name, parameter in codec.named_parameters():
        if parameter.ndim > 1:
            fan = 1 if "embedding" in name else parameter[0].numel()
            parameter.data = torch.randn(parameter.shape, generator=generator) / fan**0.5
    return codec.eval()


def edit(path: Path, drop: str = "", **changes: Any) -> None:
    data = {key: value for key, value in json.loads(path.read_text(encoding="utf-8")).items() if key != drop}
    path.write_text(json.dumps({**data, **changes}), encoding="utf-8")


def uncond(pipe: Any) -> Image:
    noise = start_noise((3, 16, 16))
    with mock.patch.object(pipeline_latent_diffusion_uncond, "randn_tensor", lambda *a, **k: noise.clone()):
        return pipe(num_inference_steps=3, output_type="np").images  # type: ignore[no-any-return]


def rows(images: torch.Tensor) -> Image:
    return images.permute(0, 2, 3, 1).numpy()


def far(got: Image, want: Image) -> float:
    return float(np.abs(got - want).max())


def vq_pipeline(folder: Path, **changes: Any) -> Path:
    pipe = unconditional()
    pipe.register_modules(vqvae=audible(vq_model(**changes)))
    return tiny.saved(pipe, folder)


def again(cls: Any, folder: Path, **options: Any) -> Any:
    pipe = cls.from_pretrained(folder, low_cpu_mem_usage=False, **options)
    pipe.set_progress_bar_config(disable=True)
    return pipe


@pytest.mark.parametrize("factor", [0.18215, 1.0, 0.5, None])
def test_unconditional(factor: float | None, tmp_path: Path) -> None:
    folder = vq_pipeline(tmp_path / "ldm", scaling_factor=factor or 0.18215)
    if factor is None:
        edit(folder / "vqvae" / "config.json", "scaling_factor")
    want = uncond(again(diffusers.LDMPipeline, folder))
    assert far(rows(ldmkit.load(folder)({}, steps=3).images), want) < 1e-4
    assert ldmkit.load_codec(folder / "vqvae").config.scale == (factor or 0.18215)


def test_a_file_from_before_latents_were_scaled(tmp_path: Path) -> None:
    """LDMPipeline did not apply a factor before 0.22, and the published models are of that time."""
    folder = vq_pipeline(tmp_path / "ldm")
    want = uncond(again(diffusers.LDMPipeline, folder))
    edit(folder / "vqvae" / "config.json", "scaling_factor", _diffusers_version="0.1.2")
    ours = ldmkit.load(folder)
    assert far(rows(ours({}, steps=3).images), want) < 1e-4
    assert far(uncond(again(diffusers.LDMPipeline, folder)), want) > 1e-2  # today's, of that file
    source = open_source(folder)
    assert any("not scaled" in note for note in source.report.notes)
    assert ldmkit.load_codec(folder / "vqvae").config.scale == 1.0
    edit(folder / "vqvae" / "config.json", scaling_factor=0.5)  # no default: somebody's own
    assert ldmkit.load(folder).codec.config.scale == 0.5


@pytest.mark.parametrize("factor", [0.18215, 1.0, None])
@pytest.mark.parametrize("kind", ["vq", "kl"])
def test_the_papers_text_to_image(kind: str, factor: float | None, tmp_path: Path) -> None:
    codec = vq_model() if kind == "vq" else tiny.vae()
    codec.register_to_config(scaling_factor=factor or 0.18215)
    pipe = paper_text(tmp_path, audible(codec))
    folder = tiny.saved(pipe, tmp_path / "saved")
    edit(folder / "vqvae" / "config.json", _diffusers_version="0.1.2")
    if factor is None:
        edit(folder / "vqvae" / "config.json", "scaling_factor")
    options = {"num_inference_steps": 3, "guidance_scale": 4.0, "height": 128, "width": 128, "output_type": "np"}
    want = pipe("a cat", latents=start_noise((codec.config.latent_channels, 16, 16)), **options).images
    got = ldmkit.load(folder)({"text": "a cat"}, steps=3, guidance=4.0, size=32).images
    assert far(rows(got), want) < 1e-4


@pytest.mark.parametrize("factor", [0.18215, 1.0, 0.5])
def test_super_resolution(factor: float, tmp_path: Path) -> None:
    pipe = super_resolution()
    pipe.register_modules(vqvae=audible(vq_model(scaling_factor=factor)))
    small = np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8)
    noise = start_noise((3, 32, 32))
    with mock.patch.object(pipeline_latent_diffusion_superresolution, "randn_tensor", lambda *a, **k: noise.clone()):
        want = pipe(PIL.Image.fromarray(small), num_inference_steps=3, output_type="np").images
    folder = tiny.saved(pipe, tmp_path / "sr")
    source = open_source(folder)
    assert any("scaling_factor is not applied" in note for note in source.report.notes) == (factor == 0.5)
    ours = ldmkit.load(folder)
    assert far(rows(ours({"image": small}, steps=3, size=64).images), want) < 1e-4
    assert ours.defaults.steps == 100


STATISTICS = {"latents_mean": [0.5, -0.3, 0.2, 0.1], "latents_std": [0.5, 2.0, 1.5, 1.0]}


@pytest.mark.parametrize(
    "changes", [STATISTICS, {"shift_factor": 0.7}, {"latents_mean": [0.5, 0.1, 0.2, 0.3]}], ids=str
)
@pytest.mark.parametrize("make", [tiny.stable_diffusion, tiny.stable_diffusion_xl])
def test_shift_and_statistics(make: Any, changes: dict[str, Any], tmp_path: Path) -> None:
    """Only the pipelines of SDXL read a mean and a deviation, and none of these a shift."""
    pipe = make()
    audible(pipe.vae)
    folder = tiny.saved(pipe, tmp_path / "folder")
    edit(folder / "vae" / "config.json", **changes)
    options = {"num_inference_steps": 3, "guidance_scale": 4.0, "height": 32, "width": 32, "output_type": "np"}
    want = again(type(pipe), folder)("the cat", latents=start_noise((4, 16, 16)), **options).images
    got = ldmkit.load(folder)({"text": "the cat"}, steps=3, guidance=4.0).images
    assert far(rows(got), want) < 1e-4
    read = changes is STATISTICS and make is tiny.stable_diffusion_xl
    notes = open_source(folder).report.notes
    assert any("is not applied" in note for note in notes) != read


def test_statistics_of_one_side_only_are_refused(tmp_path: Path) -> None:
    base = tiny.stable_diffusion_xl()
    pipe = diffusers.StableDiffusionXLInpaintPipeline(**base.components, add_watermarker=False)
    folder = tiny.saved(pipe, tmp_path / "folder")
    ldmkit.load(folder)
    edit(folder / "vae" / "config.json", **STATISTICS)
    with pytest.raises(ldmkit.SourceError, match="latents_mean"):
        ldmkit.load(folder)


def test_a_tiny_codec_in_a_pipeline(tmp_path: Path) -> None:
    pipe = tiny.stable_diffusion()
    options = {"encoder_block_out_channels": (8, 8), "decoder_block_out_channels": (8, 8)}
    blocks = {"num_encoder_blocks": (1, 1), "num_decoder_blocks": (1, 1)}
    pipe.register_modules(vae=audible(diffusers.AutoencoderTiny(**options, **blocks, shift_factor=0.3)))
    pipe.vae_scale_factor = 2
    folder = tiny.saved(pipe, tmp_path / "folder")
    options = {"num_inference_steps": 3, "guidance_scale": 4.0, "height": 32, "width": 32, "output_type": "np"}
    want = pipe("the cat", latents=start_noise((4, 16, 16)), **options).images
    got = ldmkit.load(folder)({"text": "the cat"}, steps=3, guidance=4.0).images
    assert far(rows(got), want) < 1e-4
