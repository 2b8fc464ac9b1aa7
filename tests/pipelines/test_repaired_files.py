"""Files of diffusers' first releases, which its pipelines repair when they load: each repair by its effect."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import pytest
import tiny_diffusers as tiny
import torch
from torch import Tensor

import ldmkit
from ldmkit.models.reading import open_source
from ldmkit.run.noise import Noise

NAMES = ("StableDiffusionPipeline", "StableDiffusionImg2ImgPipeline", "StableDiffusionInpaintPipeline")
Folders = Callable[[str, str], Path]
SCHEDULERS = ("DDIMScheduler", "PNDMScheduler", "EulerDiscreteScheduler")


def edit(path: Path, drop: str = "", **changes: Any) -> None:
    data = {key: value for key, value in json.loads(path.read_text(encoding="utf-8")).items() if key != drop}
    path.write_text(json.dumps({**data, **changes}), encoding="utf-8")


@cache
def base() -> Any:
    return tiny.stable_diffusion()


@cache
def folder_at(name: str, scheduler: str, root: Path) -> Path:
    more = {"skip_prk_steps": True} if scheduler == "PNDMScheduler" else {}
    parts = {**base().components, "scheduler": tiny.scheduler(scheduler, **more)}
    pipe = getattr(diffusers, name)(**parts, requires_safety_checker=False)
    return tiny.saved(pipe, root / f"{name}-{scheduler}")


@pytest.fixture
def folder_of(tmp_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, str], Path]:
    """A folder of one pipeline with one scheduler, to be edited; each is written once."""
    root = tmp_path_factory.getbasetemp() / "repaired"
    return lambda name, scheduler: Path(shutil.copytree(folder_at(name, scheduler, root), tmp_path / "folder"))


def loaded(name: str, folder: Path, shared: tuple[str, ...] = ("vae", "text_encoder")) -> Any:
    """As the oracle library loads it, repairs and all; the parts `shared` are those that were saved."""
    parts = {part: getattr(base(), part) for part in shared}
    pipe = getattr(diffusers, name).from_pretrained(folder, **parts, safety_checker=None, requires_safety_checker=False)
    pipe.set_progress_bar_config(disable=True)
    return pipe


@torch.no_grad()
def drawn(pipe: Any, noise: Tensor) -> Tensor:
    """Latents of its text-to-image loop, which the other pipelines do not offer: four steps, guidance 4."""
    cond, null = pipe.encode_prompt("the cat", "cpu", 1, True)
    pipe.scheduler.set_timesteps(4)
    x = noise * pipe.scheduler.init_noise_sigma
    for t in pipe.scheduler.timesteps:
        both = pipe.scheduler.scale_model_input(torch.cat([x, x]), t)
        plain, guided = pipe.unet(both, t, torch.cat([null, cond])).sample.chunk(2)
        x = pipe.scheduler.step(plain + 4.0 * (guided - plain), t, x).prev_sample
    return x


def same(name: str, folder: Path) -> list[str]:
    """Equal latents (1e-4 of the largest, float32) and default sizes; the notes of our reader."""
    theirs, ours = loaded(name, folder, ("vae", "text_encoder", "unet")), ldmkit.load(folder)
    side = theirs.unet.config.sample_size
    want = drawn(theirs, Noise([0], (4, side, side))(0, "start"))
    got = ours({"text": "the cat"}, steps=4, guidance=4.0)
    assert got.images.shape[2:] == (side * theirs.vae_scale_factor,) * 2
    assert float((got.latents - want).abs().max() / want.abs().max()) < 1e-4
    return open_source(folder).report.notes


@pytest.mark.filterwarnings("ignore::FutureWarning")
@pytest.mark.parametrize("scheduler", SCHEDULERS)
@pytest.mark.parametrize("name", NAMES)
def test_an_offset_that_is_missing_or_another(name: str, scheduler: str, folder_of: Folders) -> None:
    folder = folder_of(name, scheduler)
    assert not any("steps_offset" in note for note in same(name, folder))
    for drop, changes in (("steps_offset", {}), ("", {"steps_offset": 0}), ("", {"steps_offset": 2})):
        edit(folder / "scheduler" / "scheduler_config.json", drop, **changes)
        assert any("steps_offset" in note for note in same(name, folder))


@pytest.mark.filterwarnings("ignore::FutureWarning")
@pytest.mark.parametrize("name", NAMES)
def test_clipping_that_is_missing_or_on(name: str, folder_of: Folders) -> None:
    """The text-to-image pipelines switch it off; the inpainting one does not."""
    folder = folder_of(name, "DDIMScheduler")
    repairs = "Inpaint" not in name
    for drop, changes in (("clip_sample", {}), ("", {"clip_sample": True})):
        edit(folder / "scheduler" / "scheduler_config.json", drop, **changes)
        assert any("clip_sample" in note for note in same(name, folder)) == repairs


@pytest.mark.filterwarnings("ignore::FutureWarning")
@pytest.mark.parametrize(
    ("version", "size", "right"),
    [
        *(("0.8.1", 16, 64), ("0.3.0.dev0", 32, 64), ("0.9.0", 16, 16), ("0.9.0.dev0", 16, 16), ("0.42.1", 8, 8)),
        *(("0.4.0", 72, 72), (None, 16, 16)),
    ],
)
@pytest.mark.parametrize("name", NAMES)
def test_sizes_of_old_networks(name: str, version: str | None, size: int, right: int, folder_of: Folders) -> None:
    folder = folder_of(name, "DDIMScheduler")
    changes = {} if version is None else {"_diffusers_version": version}
    edit(folder / "unet" / "config.json", "_diffusers_version", sample_size=size, **changes)
    theirs = loaded(name, folder)
    assert theirs.unet.config.sample_size == right
    assert ldmkit.load(folder).defaults.size == (2 * right, 2 * right)
    assert any("sample_size" in note for note in open_source(folder).report.notes) == (size != right)


@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_a_repaired_size_is_drawn_at(folder_of: Folders) -> None:
    folder = folder_of(NAMES[0], "DDIMScheduler")
    edit(folder / "unet" / "config.json", _diffusers_version="0.6.0", sample_size=32)
    theirs = loaded(NAMES[0], folder)
    want = theirs(
        "the cat", latents=Noise([0], (4, 64, 64))(0, "start"), num_inference_steps=2, output_type="np"
    ).images
    got = ldmkit.load(folder)({"text": "the cat"}, steps=2).images.permute(0, 2, 3, 1).numpy()
    assert got.shape == want.shape == (1, 128, 128, 3)
    assert np.abs(got - want).max() < 1e-4


@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_pipelines_of_later_releases_repair_nothing(tmp_path: Path) -> None:
    folder = tiny.saved(tiny.controlnet_pipeline(), tmp_path / "folder")
    edit(folder / "unet" / "config.json", _diffusers_version="0.6.0", sample_size=8)
    edit(folder / "scheduler" / "scheduler_config.json", clip_sample=True, steps_offset=0)
    theirs = loaded("StableDiffusionControlNetPipeline", folder, ())
    ours = ldmkit.load(folder)
    assert theirs.unet.config.sample_size == 8 and ours.defaults.size == (16, 16)
    assert theirs.scheduler.config.clip_sample and ours.defaults.sampler.config["limits"]
    assert theirs.scheduler.config.steps_offset == 0 and "offset" not in ours.defaults.grid.config
