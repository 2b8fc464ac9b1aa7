"""Tokens trained here on folders of diffusers: the file is loaded there, and draws what it draws here.

Tolerance: 1e-4 of the largest latent, in float32, as for other pipelines (see test_diffusers_pipelines).
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import diffusers
import pytest
import tiny_diffusers as tiny
import torch
from ldmkit_training.before.recipe import parse_recipe
from ldmkit_training.loop.engine import Engine
from PIL import Image
from safetensors.torch import load_file

import ldmkit
from ldmkit.run.noise import Noise

NOISE = Noise([3], (4, 16, 16))(0, "start")


@pytest.mark.parametrize(("name", "layout"), [("sd", "diffusers"), ("sd", "a1111"), ("xl", "diffusers")])
def test_diffusers_draws_the_same(name: str, layout: str, tmp_path: Path) -> None:
    folder = tiny.saved(tiny.stable_diffusion() if name == "sd" else tiny.stable_diffusion_xl(), tmp_path / "base")
    data = tmp_path / "data"
    data.mkdir()
    Image.effect_noise((32, 32), 80).convert("RGB").save(data / "0.png")
    (data / "metadata.jsonl").write_text(json.dumps({"file_name": "0.png", "text": "a <thing> by the sea"}))
    recipe = {
        "stage": "textual-inversion", "out": str(tmp_path / "run"), "steps": 4, "model": {"start": str(folder)},
        "token": {"word": "<thing>", "vectors": 2, "layout": layout},
        "data": {"train": {"type": "folder", "config": {"folder": str(data)}}, "size": [32, 32], "batch": 1},
        "optimiser": {"lr": 0.05}, "ema": None, "precision": "float32", "validation": None, "previews": None,
        "tracking": {"to": []}, "probe": None,
    }  # fmt: skip
    model = Engine(parse_recipe(recipe), Path()).run().model
    assert model is not None
    ours = ldmkit.load(folder).with_embedding(model, token="<thing>")
    call: dict[str, Any] = {"steps": 3, "guidance": 4.0, "seeds": [3], "size": (32, 32)}
    mine = ours({"text": "the <thing>"}, negative={"text": "a blur"}, **call).latents
    theirs: Any = diffusers.DiffusionPipeline.from_pretrained(folder)
    theirs.set_progress_bar_config(disable=True)
    if name == "sd":
        theirs.load_textual_inversion(model, weight_name="learned_embeds.safetensors", token="<thing>")
    else:
        state = load_file(model / "learned_embeds.safetensors")
        for key, end in (("clip_l", ""), ("clip_g", "_2")):
            parts = {
                "text_encoder": getattr(theirs, f"text_encoder{end}"),
                "tokenizer": getattr(theirs, f"tokenizer{end}"),
            }
            theirs.load_textual_inversion(state[key], token="<thing>", **parts)
    want = theirs(
        prompt="the <thing>", negative_prompt="a blur", latents=NOISE, num_inference_steps=3, guidance_scale=4.0,
        height=32, width=32, output_type="latent",
    ).images  # fmt: skip
    other = ours({"text": "the house"}, negative={"text": "a blur"}, **call).latents
    assert float((mine - other).abs().max()) > 1e-3, "a word that would be noticed"
    assert float((mine - want).abs().max() / want.abs().max()) < 1e-4
    assert torch.isfinite(mine).all()
