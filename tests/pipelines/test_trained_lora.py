"""LoRAs trained here on a folder of diffusers: the file is loaded there, and draws what it draws here.

Tolerance: 1e-4 of the largest latent, in float32, as in test_lora_diffusers.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import lora_files as made
import pytest
import tiny_diffusers as tiny
import torch
from ldmkit_training.before.recipe import parse_recipe
from ldmkit_training.loop.engine import Engine
from safetensors.torch import load_file
from torch import Tensor

import ldmkit
from ldmkit.run.noise import Noise

NOISE = Noise([3], (4, 16, 16))(0, "start")
WORDS = {"prompt": "the red house", "negative_prompt": "a blur"}
PROJECTIONS = ["q_proj", "k_proj", "v_proj", "out_proj", "fc1", "fc2"]
EVERYTHING = {"targets": ["*"], "conditioners": {"text": ["*"]}}
VARIANTS: dict[str, dict[str, Any]] = {
    "attention": {"rank": 4, "alpha": 6.0},
    "attention, kohya": {"rank": 4, "alpha": 6.0, "layout": "kohya"},
    "texts": {"rank": 3, "alpha": 5.0, "conditioners": {"text": PROJECTIONS}},
    "texts, kohya": {"rank": 3, "alpha": 5.0, "conditioners": {"text": PROJECTIONS}, "layout": "kohya"},
    "every layer": {"rank": 2, **EVERYTHING},
    "ranks": {"rank": 4, "alpha": 3.0, "ranks": {"to_q": 2, "mid.*": 3}, **EVERYTHING},
    "dora": {"rank": 2, "alpha": 3.0, "dora": True, "targets": ["*"]},  # diffusers loads none of text encoders
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.saved(tiny.stable_diffusion(), tmp_path_factory.mktemp("base"))


def trained(start: Path, out: Path, lora: dict[str, Any], conditioners: str = "text") -> Path:
    """The file of a run of four steps at a high rate."""
    world = {"type": "miniworld", "config": {"split": "train", "count": 8, "size": 32}}
    recipe = {
        "stage": "lora", "out": str(out), "steps": 4, "model": {"start": str(start)}, "lora": lora,
        "data": {"train": world, "size": [32, 32], "batch": 2, "inputs": {"text": "text"}},
        "optimiser": {"lr": 0.02}, "ema": None, "precision": "float32", "validation": None, "previews": None,
        "tracking": {"to": []}, "probe": None,
    }  # fmt: skip
    model = Engine(parse_recipe(recipe), Path()).run().model
    assert model is not None
    return model / "pytorch_lora_weights.safetensors"


def drawn(pipe: ldmkit.Pipeline) -> Tensor:
    latents: Tensor = pipe(
        {"text": WORDS["prompt"]}, negative={"text": WORDS["negative_prompt"]}, steps=3, guidance=4.0, seeds=[3]
    ).latents
    return latents


@pytest.mark.parametrize("name", VARIANTS)
def test_diffusers_draws_the_same(folder: Path, tmp_path: Path, name: str) -> None:
    file = trained(folder, tmp_path / "run", VARIANTS[name])
    ours = ldmkit.load(folder)
    plain, mine = drawn(ours), drawn(ours.with_lora(file))
    want = made.drawn_by_diffusers(folder, [(file, 1.0)], NOISE, num_inference_steps=3, guidance_scale=4.0, **WORDS)
    assert float((mine - plain).abs().max() / want.abs().max()) > 0.01, "a change that would be noticed"
    assert float((mine - want).abs().max() / want.abs().max()) < 1e-4


def test_the_keys_are_those_that_diffusers_writes(folder: Path, tmp_path: Path) -> None:
    """Names and shapes, of every layer, with lengths; diffusers reads texts with and without the `text_model.` that
    transformers had until version 5."""
    every = {"r": 2, "lora_alpha": 3, "target_modules": made.ALL, "use_dora": True}
    texts = {"r": 2, "lora_alpha": 3, "target_modules": made.TEXT, "use_dora": True}
    want = load_file(made.by_diffusers(tiny.stable_diffusion(), tmp_path, every, texts))
    file = load_file(trained(folder, tmp_path / "run", {**VARIANTS["dora"], **EVERYTHING}))
    got = {key.replace("text_model.", ""): t.shape for key, t in file.items()}
    assert got == {key: t.shape for key, t in want.items()}


def test_two_text_encoders(tmp_path: Path) -> None:
    folder = tiny.saved(tiny.stable_diffusion_xl(), tmp_path / "base")
    ours = ldmkit.load(folder)
    towers = [name for name, part in ours.conditioners.items() if getattr(part, "ports", None)]
    for layout in ("diffusers", "kohya"):
        lora = {
            "rank": 2,
            "conditioners": {name: ["q_proj", "out_proj", "fc1"] for name in towers[:2]},
            "layout": layout,
        }
        file = trained(folder, tmp_path / layout, lora)
        starts = {"lora_te1", "lora_te2"} if layout == "kohya" else {"text_encoder", "text_encoder_2"}
        kinds = {key.split("." if layout == "diffusers" else "_text_model")[0] for key in load_file(file)}
        assert starts <= kinds
        call = {"num_inference_steps": 3, "guidance_scale": 4.0, "height": 32, "width": 32}
        want = made.drawn_by_diffusers(folder, [(file, 1.0)], NOISE, **WORDS, **call)
        mine = drawn(ours.with_lora(file))
        assert not torch.equal(mine, drawn(ours))
        assert float((mine - want).abs().max() / want.abs().max()) < 1e-4
