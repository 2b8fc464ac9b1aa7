"""A folder of diffusers, fine-tuned whole and written back: diffusers draws what the trained model draws.

Tolerance: 1e-4 of the largest latent, in float32, as for other pipelines (see test_diffusers_pipelines).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import diffusers
import pytest
import tiny_diffusers as tiny
import torch
from ldmkit_checkpoints.diffusers.export import save_diffusers
from ldmkit_training.before.recipe import parse_recipe
from ldmkit_training.loop.engine import Engine

import ldmkit
from ldmkit.run.noise import Noise

NOISE = Noise([3], (4, 16, 16))(0, "start")
WORDS = {"prompt": "the red house", "negative_prompt": "a blur"}


@pytest.mark.parametrize("name", ["sd", "xl"])
def test_trained_and_written_back(name: str, tmp_path: Path) -> None:
    folder = tiny.saved(tiny.stable_diffusion() if name == "sd" else tiny.stable_diffusion_xl(), tmp_path / "base")
    world = {"type": "miniworld", "config": {"split": "train", "count": 8, "size": 32}}
    recipe = {
        "stage": "denoiser", "out": str(tmp_path / "run"), "steps": 3, "model": {"start": str(folder)},
        "data": {"train": world, "size": [32, 32], "batch": 2}, "objective": {"dropout": {"rates": {"text": 0.1}}},
        "optimiser": {"lr": 0.003}, "ema": None, "precision": "float32", "validation": None, "previews": None,
        "tracking": {"to": []}, "probe": None,
    }  # fmt: skip
    model = Engine(parse_recipe(recipe), Path()).run().model
    assert model is not None
    ours, before = ldmkit.load(model), ldmkit.load(folder)
    written = save_diffusers(ours, tmp_path / "written")
    call: dict[str, Any] = {"steps": 3, "guidance": 4.0, "seeds": [3], "size": (32, 32)}
    mine = ours({"text": WORDS["prompt"]}, negative={"text": WORDS["negative_prompt"]}, **call).latents
    theirs: Any = diffusers.DiffusionPipeline.from_pretrained(written)
    theirs.set_progress_bar_config(disable=True)
    shape: dict[str, Any] = {"height": 32, "width": 32, "output_type": "latent", "latents": NOISE}
    want = theirs(num_inference_steps=3, guidance_scale=4.0, **WORDS, **shape).images
    first = before({"text": WORDS["prompt"]}, negative={"text": WORDS["negative_prompt"]}, **call).latents
    assert float((mine - first).abs().max() / want.abs().max()) > 0.01, "training that would be noticed"
    assert float((mine - want).abs().max() / want.abs().max()) < 1e-4
    old = before.conditioners["text"].state_dict()
    assert all(torch.equal(old[key], t) for key, t in ours.conditioners["text"].state_dict().items())
