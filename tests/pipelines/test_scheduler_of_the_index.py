"""A folder whose index names another scheduler than the scheduler's own config: the index counts, as in diffusers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import diffusers
import pytest
from tiny_diffusers import saved, stable_diffusion

import ldmkit
from ldmkit.models.reading import open_source

OLD = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear", "num_train_timesteps": 1000}
OLD |= {"trained_betas": None, "set_alpha_to_one": False, "skip_prk_steps": True, "clip_sample": False}


def edited(folder: Path, own: dict[str, Any], index: str) -> str:
    """A pipeline's folder with another scheduler config, and another class in its index."""
    file = folder / "model_index.json"
    names = json.loads(file.read_text())
    file.write_text(json.dumps({**names, "scheduler": ["diffusers", index]}))
    (folder / "scheduler" / "scheduler_config.json").write_text(json.dumps(own))
    return str(folder)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return saved(stable_diffusion(), tmp_path / "model")


def test_the_class_of_the_index_counts(folder: Path) -> None:
    """As diffusers has it: fields that both classes have are kept, others are the loaded class's defaults."""
    own = {"_class_name": "DDIMScheduler", **OLD, "steps_offset": 1, "timestep_spacing": "trailing"}
    path = edited(folder, own, "EulerDiscreteScheduler")
    theirs = diffusers.StableDiffusionPipeline.from_pretrained(path, safety_checker=None).scheduler
    assert type(theirs).__name__ == "EulerDiscreteScheduler" and theirs.config.timestep_spacing == "trailing"
    source = open_source(path)
    assert source.spec.defaults.sampler.type == "euler"
    notes = source.report.notes
    pipe = ldmkit.load(path)
    assert (pipe.defaults.sampler.type, pipe.defaults.grid.type) == ("euler", "trailing")
    assert any("EulerDiscreteScheduler" in note and "DDIMScheduler" in note for note in notes)


@pytest.mark.parametrize("name", ["FlowMatchEulerDiscreteScheduler", "NoSuchScheduler"])
def test_an_unknown_class_of_the_index_is_named(folder: Path, name: str) -> None:
    path = edited(folder, {"_class_name": "DDIMScheduler", **OLD}, name)
    with pytest.raises(ldmkit.SourceError, match=name):
        ldmkit.load(path)


def test_the_pipeline_that_makes_ddim_of_every_scheduler(tmp_path: Path) -> None:
    """Fields that DDIMScheduler has too are kept."""
    unet = diffusers.UNet2DModel(
        sample_size=8, block_out_channels=(8,), norm_num_groups=4, layers_per_block=1,
        down_block_types=("DownBlock2D",), up_block_types=("UpBlock2D",),
    )  # fmt: skip
    pipe = diffusers.DDIMPipeline(unet, diffusers.DDIMScheduler(clip_sample=False))
    pipe.save_pretrained(tmp_path / "model")
    own = {"_class_name": "EulerDiscreteScheduler", **OLD, "timestep_spacing": "trailing"}
    path = edited(tmp_path / "model", own, "EulerDiscreteScheduler")
    theirs = diffusers.DDIMPipeline.from_pretrained(path).scheduler
    assert type(theirs).__name__ == "DDIMScheduler" and theirs.config.timestep_spacing == "trailing"
    source = open_source(path)
    assert (source.spec.defaults.sampler.type, source.spec.defaults.grid.type) == ("ddim", "trailing")
    assert any("DDIMPipeline" in note and "EulerDiscreteScheduler" in note for note in source.report.notes)
