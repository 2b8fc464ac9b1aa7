"""ControlNets trained here on folders of diffusers: they load there, and draw what they draw here.

Tolerance: 1e-4 of the largest latent, in float32, as for other pipelines (see test_diffusers_pipelines).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import diffusers
import pytest
import tiny_diffusers as tiny
import torch
from ldmkit_training.before.recipe import parse_recipe
from ldmkit_training.loop.engine import Engine

import ldmkit
from ldmkit.run.noise import Noise

NOISE = Noise([3], (4, 16, 16))(0, "start")
BASES: dict[str, tuple[Any, type[Any]]] = {
    "sd": (tiny.stable_diffusion, diffusers.StableDiffusionControlNetPipeline),
    "xl": (tiny.stable_diffusion_xl, diffusers.StableDiffusionXLControlNetPipeline),
}


@pytest.mark.parametrize("name", BASES)
def test_diffusers_draws_the_same(name: str, tmp_path: Path) -> None:
    make, cls = BASES[name]
    folder = tiny.saved(make(), tmp_path / "base")
    world = {"type": "miniworld", "config": {"split": "train", "count": 8, "size": 32}}
    recipe = {
        "stage": "controlnet", "out": str(tmp_path / "run"), "steps": 4, "model": {"start": str(folder)},
        "data": {"train": world, "size": [32, 32], "batch": 2, "extract": {"hint": {"type": "canny"}}},
        "optimiser": {"lr": 0.02}, "ema": None, "precision": "float32", "validation": None, "previews": None,
        "tracking": {"to": []}, "probe": None,
    }  # fmt: skip
    model = Engine(parse_recipe(recipe), Path()).run().model
    assert model is not None
    hint = (torch.rand(3, 32, 32, generator=torch.Generator().manual_seed(1)) > 0.7).float()
    ours = ldmkit.load(folder).with_adapter_file(model)
    call: dict[str, Any] = {"steps": 3, "guidance": 4.0, "seeds": [3], "size": (32, 32)}
    mine = ours({"text": "the red house", "hint": hint * 2 - 1}, negative={"text": "a blur"}, **call).latents
    plain = ours({"text": "the red house"}, negative={"text": "a blur"}, **call).latents
    base: Any = diffusers.DiffusionPipeline.from_pretrained(folder)
    theirs: Any = cls.from_pipe(base, controlnet=diffusers.ControlNetModel.from_pretrained(model))
    theirs.set_progress_bar_config(disable=True)
    want = theirs(
        prompt="the red house", negative_prompt="a blur", image=hint[None], latents=NOISE, num_inference_steps=3,
        guidance_scale=4.0, height=32, width=32, output_type="latent",
    ).images  # fmt: skip
    assert float((mine - plain).abs().max() / want.abs().max()) > 0.01, "a hint that would be noticed"
    assert float((mine - want).abs().max() / want.abs().max()) < 1e-4
