"""IP-Adapters trained here on folders of diffusers: its `load_ip_adapter` takes the file, and draws what is drawn here.

Tolerance: 1e-4 of the largest latent, in float32, as for other pipelines (see test_diffusers_pipelines).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import diffusers
import ip_files as made
import pytest
import tiny_diffusers as tiny
import torch
from ldmkit_training.before.recipe import parse_recipe
from ldmkit_training.loop.engine import Engine
from transformers import CLIPImageProcessorPil, CLIPVisionModelWithProjection

import ldmkit
from ldmkit.run.noise import Noise

NOISE = Noise([3], (4, 16, 16))(0, "start")
BASES: dict[str, Any] = {"sd": tiny.stable_diffusion, "xl": tiny.stable_diffusion_xl}


@pytest.mark.parametrize("kind", [None, "plain", "plus", "full"])
@pytest.mark.parametrize("name", BASES)
def test_diffusers_draws_the_same(name: str, kind: str | None, tmp_path: Path) -> None:
    """A new one, and those that published files of each kind are the start of; with guidance, whose other side is what
    training puts in the place of a dropped picture."""
    folder, encoder = tiny.saved(BASES[name](), tmp_path / "base"), made.encoder(tmp_path / "encoder")
    world = {"type": "miniworld", "config": {"split": "train", "count": 8, "size": 32}}
    recipe = {
        "stage": "ip-adapter", "out": str(tmp_path / "run"), "steps": 4, "model": {"start": str(folder)},
        "ip_adapter": {"encoder": str(encoder)},
        "data": {"train": world, "size": [32, 32], "batch": 2, "extract": {"ip-image": {"type": "tile"}}},
        "optimiser": {"lr": 0.02}, "ema": None, "precision": "float32", "validation": None, "previews": None,
        "tracking": {"to": []}, "probe": None,
    }  # fmt: skip
    unet = diffusers.UNet2DConditionModel.from_pretrained(folder, subfolder="unet")
    if kind is not None:
        started = made.saved(made.adapter(unet, kind), tmp_path / "start.bin")
        recipe["ip_adapter"] = {"encoder": str(encoder), "start": str(started)}
    engine = Engine(parse_recipe(recipe), Path())
    if kind is None:
        check_beginning(engine.stage, unet)
    model = engine.run().model
    assert model is not None
    call: dict[str, Any] = {"steps": 3, "guidance": 4.0, "seeds": [3], "size": (32, 32)}
    ours, given = ldmkit.load(folder).with_adapter_file(model, encoder=encoder), made.picture(1)
    mine = ours({"text": "the red house", "ip-image": given}, negative={"text": "a blur"}, **call).latents
    plain = ours({"text": "the red house"}, negative={"text": "a blur"}, **call).latents
    theirs: Any = diffusers.DiffusionPipeline.from_pretrained(folder)
    theirs.set_progress_bar_config(disable=True)
    theirs.load_ip_adapter(str(model), subfolder="", weight_name="ip-adapter.safetensors", image_encoder_folder=None)
    theirs.register_modules(
        image_encoder=CLIPVisionModelWithProjection.from_pretrained(encoder).eval(),
        feature_extractor=CLIPImageProcessorPil(size=made.EDGE, crop_size=made.EDGE),
    )
    want = theirs(
        prompt="the red house", negative_prompt="a blur", ip_adapter_image=given, latents=NOISE, num_inference_steps=3,
        guidance_scale=4.0, height=32, width=32, output_type="latent",
    ).images  # fmt: skip
    assert float((mine - plain).abs().max() / want.abs().max()) > 0.01, "a picture that would be noticed"
    assert float((mine - want).abs().max() / want.abs().max()) < 1e-4


def check_beginning(stage: Any, unet: Any) -> None:
    """Keys and values of the pictures are those of texts, attention by attention in diffusers' order."""
    names = [name for name in unet.attn_processors if name.endswith("attn2.processor")]
    for own, key in ((stage.adapter.to_k, "to_k"), (stage.adapter.to_v, "to_v")):
        assert len(own) == len(names)
        for layer, place in zip(own, names, strict=True):
            assert torch.equal(layer.weight, unet.get_submodule(place.replace("processor", key)).weight)
